"""What each --mode does with the flags."""

import pathlib

from absl import flags as absl_flags
from ml_collections import config_flags

from rwp_jax.command_line import flags
from rwp_jax.command_line.config_file import load_config
from rwp_jax.command_line.parsing import Mode
from rwp_jax.distributed import devices, rendezvous
from rwp_jax.errors import InputError
from rwp_jax.evaluation import pseudo_label, table2
from rwp_jax.explain.explain import explain
from rwp_jax.hardware.plan import print_plan
from rwp_jax.models.convolution import prefer_eigen
from rwp_jax.pytorch import export, import_
from rwp_jax.report import side_by_side
from rwp_jax.reproduce.reproduce import reproduce
from rwp_jax.runs import loaded
from rwp_jax.training import self_training


def default_workdir() -> pathlib.Path:
    """runs/NAME for configs/NAME.py, runs/NAME_ARGUMENT for configs/NAME.py:ARGUMENT."""
    path, _, argument = config_flags.get_config_filename(absl_flags.FLAGS["config"]).partition(":")
    return pathlib.Path("runs") / "_".join(filter(None, [pathlib.Path(path).stem, argument]))


def train() -> None:
    rendezvous.connect(
        flags.COORDINATOR.value,
        flags.PROCESSES.value,
        flags.PROCESS_ID.value,
        flags.CONNECT_SECONDS.value,
    )
    if flags.CONFIG.value.dtype == "float32":
        prefer_eigen()
    directory = pathlib.Path(flags.WORKDIR.value) if flags.WORKDIR.value else default_workdir()
    profile = pathlib.Path(flags.PROFILE.value) if flags.PROFILE.value else None
    self_training.train(flags.CONFIG.value, directory, flags.RESUME.value, profile)


def label() -> None:
    directory, output = pathlib.Path(flags.WORKDIR.value), pathlib.Path(flags.OUTPUT.value)
    pseudo_label.pseudo_label(
        directory, flags.UNLABELED.value, output, flags.CHECKPOINT.value or "last"
    )


def evaluate() -> None:
    directory = pathlib.Path(flags.WORKDIR.value)
    if loaded.read_config(directory).dtype != "float64":
        prefer_eigen()
    devices.split_cpu()
    which = flags.CHECKPOINT.value or "best"
    table2.evaluate(
        directory, which, flags.ATTACKS.value, flags.EXAMPLES.value, flags.SAVE_IMAGES.value
    )


def optimizer_file() -> pathlib.Path | None:
    return pathlib.Path(flags.TORCH_OPTIMIZER.value) if flags.TORCH_OPTIMIZER.value else None


def import_torch() -> None:
    directory, checkpoint = (
        pathlib.Path(flags.WORKDIR.value),
        pathlib.Path(flags.TORCH_CHECKPOINT.value),
    )
    import_.import_torch(
        flags.CONFIG.value, directory, checkpoint, optimizer_file(), flags.EPOCH.value
    )


def export_torch() -> None:
    directory, output = pathlib.Path(flags.WORKDIR.value), pathlib.Path(flags.OUTPUT.value)
    which = flags.CHECKPOINT.value or "best"
    export.export_torch(directory, which, output, optimizer_file(), flags.SUB_BLOCK1.value)


def curves_file() -> pathlib.Path | None:
    return pathlib.Path(flags.CURVES.value) if flags.CURVES.value else None


def reproduce_paper() -> None:
    reproduce(
        flags.EXPERIMENT.value,
        flags.SCALE.value,
        pathlib.Path(flags.WORKDIR.value),
        load_config,
        seeds=flags.SEEDS.value,
        overrides=flags.SETTINGS.value,
        only=flags.ONLY.value,
        show_plan=flags.LIST.value,
        target=flags.TARGET.value,
        devices=flags.DEVICES.value,
        jobs=flags.JOBS.value,
        curves=curves_file(),
    )


def plan() -> None:
    if flags.WORKDIR.present:
        raise InputError("--workdir is not for --mode=plan: it writes nothing")
    print_plan(flags.CONFIG.value, flags.TARGET.value, flags.DEVICES.value)


def workdirs() -> list[pathlib.Path]:
    if not all(flags.WORKDIRS.value):
        raise InputError(
            f"--workdirs={','.join(flags.WORKDIRS.value)}: an entry between commas is empty"
        )
    return [pathlib.Path(name) for name in flags.WORKDIRS.value]


def explain_run() -> None:
    directory, which = pathlib.Path(flags.WORKDIR.value), flags.CHECKPOINT.value or "best"
    if loaded.read_config(directory).dtype != "float64":
        prefer_eigen()
    explain(directory, workdirs(), which, flags.EXAMPLES.value)


def report() -> None:
    directories = workdirs()
    output = pathlib.Path(flags.WORKDIR.value or "runs/report")
    side_by_side.compare(directories, output, curves_file(), flags.ONLY.value)


# Which flags each takes, beside --mode and --workdir.
MODES = {
    "train": Mode(
        train,
        takes={
            "config",
            "resume",
            "profile",
            "coordinator",
            "processes",
            "process_id",
            "connect_seconds",
        },
    ),
    "evaluate": Mode(
        evaluate, takes={"checkpoint", "attacks", "examples", "save_images"}, needs=("workdir",)
    ),
    "pseudo_label": Mode(
        label, takes={"checkpoint", "unlabeled", "output"}, needs=("workdir", "output")
    ),
    "import_torch": Mode(
        import_torch,
        takes={"config", "torch_checkpoint", "torch_optimizer", "epoch"},
        needs=("torch_checkpoint", "workdir"),
    ),
    "export_torch": Mode(
        export_torch,
        takes={"checkpoint", "output", "torch_optimizer", "sub_block1"},
        needs=("workdir", "output"),
    ),
    "reproduce": Mode(
        reproduce_paper,
        takes={
            "experiment",
            "scale",
            "seeds",
            "jobs",
            "curves",
            "list",
            "only",
            "override",
            "target",
            "devices",
        },
        needs=("experiment", "workdir"),
    ),
    "explain": Mode(explain_run, takes={"checkpoint", "examples", "workdirs"}, needs=("workdir",)),
    "report": Mode(report, takes={"workdirs", "curves", "only"}, needs=("workdirs",)),
    "plan": Mode(plan, takes={"config", "target", "devices"}, needs=("target",)),
}
