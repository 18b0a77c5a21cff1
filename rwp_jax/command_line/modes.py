"""Implements each --mode: passes the flags to the package's functions."""

import contextlib
import hashlib
import pathlib

from absl import flags as absl_flags
from ml_collections import config_flags

from rwp_jax.command_line import flags
from rwp_jax.command_line.arguments import path_of
from rwp_jax.command_line.checkpoints import import_network, inspect_path
from rwp_jax.command_line.config_file import load_config
from rwp_jax.command_line.given_weights import given_weights
from rwp_jax.command_line.parsing import Mode, numbers
from rwp_jax.data.writing import write_set
from rwp_jax.distributed import devices, failures, rendezvous
from rwp_jax.distributed.preemption import ending_at_once
from rwp_jax.errors import InputError, check_path, renamed
from rwp_jax.evaluation import pseudo_label, table2
from rwp_jax.evaluation.columns import default_attacks, heading, parse_attacks
from rwp_jax.evaluation.corruptions import evaluate_corruptions
from rwp_jax.evaluation.subject import Changes, folder_name
from rwp_jax.explain.explain import explain
from rwp_jax.hardware.plan import print_plan
from rwp_jax.models.precision import enable_x64_for
from rwp_jax.pytorch import export
from rwp_jax.report import side_by_side
from rwp_jax.report.radii import draw_radii
from rwp_jax.reproduce.reproduce import reproduce
from rwp_jax.runs import loaded
from rwp_jax.runs.config import PATHS
from rwp_jax.runs.layout import EVALUATION
from rwp_jax.training import self_training
from rwp_jax.training.jax_setup import prepare


def default_workdir() -> pathlib.Path:
    """runs/NAME for configs/NAME.py, runs/NAME_ARGUMENT for configs/NAME.py:ARGUMENT."""
    path, _, argument = config_flags.get_config_filename(absl_flags.FLAGS["config"]).partition(":")
    return pathlib.Path("runs") / "_".join(filter(None, [pathlib.Path(path).stem, argument]))


def _prepare_for(*directories: pathlib.Path) -> None:
    """Configures JAX for evaluating trained networks, in float32 if training was in bfloat16."""
    _prepare_verdicts([loaded.config_of(directory).dtype for directory in directories])


def _prepare_verdicts(dtypes: list[str]) -> None:
    prepare(*("float64" if dtype == "float64" else "float32" for dtype in dtypes))


def train() -> None:
    rendezvous.connect(
        flags.COORDINATOR.value,
        flags.PROCESSES.value,
        flags.PROCESS_ID.value,
        flags.CONNECT_SECONDS.value,
    )
    prepare(flags.CONFIG.value.dtype)  # first: watching makes JAX read its flags
    failures.watch()
    directory = path_of(flags.WORKDIR) or default_workdir()
    self_training.train(
        flags.CONFIG.value,
        directory,
        flags.RESUME.value,
        path_of(flags.PROFILE),
        flags.MAX_RESTARTS.value,
        flags.EXTEND.value,
        given_weights(),
    )


def _moved_data() -> dict[str, str]:
    """Returns the keys of the run's config whose paths have changed, with their new values."""
    paths = {}
    for entry in flags.MOVED_DATA.value:
        key, equals, path = entry.partition("=")
        if key not in PATHS or not equals:
            raise InputError(
                f"--moved_data={entry} must be KEY=PATH with one of {', '.join(PATHS)}"
            )
        paths[key] = path
    return paths


def label() -> None:
    directory, which = path_of(flags.WORKDIR), flags.CHECKPOINT.value or "last"
    _prepare_for(directory)
    pseudo_label.pseudo_label(
        directory, flags.UNLABELED.value, path_of(flags.OUTPUT), which, _moved_data()
    )


def write_data() -> None:
    if flags.WORKDIR.present:
        raise InputError(
            "--workdir is not for --mode=write_data: name the directory as --output DIR"
        )
    write_set(path_of(flags.PATH), path_of(flags.OUTPUT))


def evaluate() -> None:
    directory, which = path_of(flags.WORKDIR), flags.CHECKPOINT.value or "best"
    loaded.read_config(directory)  # rejects the zoo's networks, as results need a directory
    _prepare_for(directory)
    devices.split_cpu()
    if flags.CORRUPTIONS.value:
        _evaluate_corruptions(directory, which)
        return
    step_size = numbers("step_size", flags.STEP_SIZE.value)
    if len(step_size) > 1:
        raise InputError(f"step_size={flags.STEP_SIZE.value} must be one number")
    changes = Changes(
        flags.NORM.value,
        tuple(dict.fromkeys(numbers("epsilon", flags.EPSILON.value))),
        step_size[0] if step_size else None,
        flags.DATA.value,
        flags.SPLIT.value,
        tuple(_moved_data().items()),
    )
    attacks, examples = flags.ATTACKS.value, flags.EXAMPLES.value
    if changes.norm and not absl_flags.FLAGS["attacks"].present:
        attacks = default_attacks(changes.norm)
    summaries = table2.evaluate(
        directory, which, attacks, examples, flags.SAVE_IMAGES.value, changes
    )
    if len(changes.epsilons) > 1:
        _draw_sweep(directory, which, attacks, changes, summaries)


def _draw_sweep(directory, which: str, attacks: str, changes: Changes, summaries) -> None:
    """Draws accuracy over the radius, one picture per sweep, to the run's evaluations."""
    config, names = loaded.config_of(directory), parse_attacks(attacks)
    folder = folder_name(config, which, flags.EXAMPLES.value, changes)
    swept = ",".join([*names, *map(repr, changes.epsilons)])
    digest = hashlib.sha256(swept.encode()).hexdigest()[:6]
    path = directory / EVALUATION / f"{folder}_radii_{digest}.png"
    headings = {name: heading(name) for name in names}
    title = f"{directory.resolve().name}, {which} checkpoint"
    caption = draw_radii(summaries, headings, config, title, path)
    print(f"wrote {path} and {path.with_suffix('.json')}\n{caption}")


def _evaluate_corruptions(directory: pathlib.Path, which: str) -> None:
    for name in ("attacks", "norm", "epsilon", "step_size", "data", "split", "save_images"):
        if absl_flags.FLAGS[name].present:
            raise InputError(f"--{name} is not for --corruptions, which attacks nothing")
    folder = path_of(flags.CORRUPTIONS)
    evaluate_corruptions(directory, which, folder, flags.EXAMPLES.value)


def export_torch() -> None:
    directory, which = path_of(flags.WORKDIR), flags.CHECKPOINT.value
    _prepare_for(directory)
    optimizer = path_of(flags.TORCH_OPTIMIZER)
    export.export_torch(directory, which, path_of(flags.OUTPUT), optimizer, flags.SUB_BLOCK1.value)


def reproduce_paper() -> None:
    with ending_at_once() if flags.LIST.value else contextlib.nullcontext():
        reproduce(
            flags.EXPERIMENT.value,
            flags.SCALE.value,
            path_of(flags.WORKDIR),
            load_config,
            seeds=flags.SEEDS.value,
            overrides=flags.SETTINGS.value,
            only=flags.ONLY.value,
            show_plan=flags.LIST.value,
            target=flags.TARGET.value,
            devices=flags.DEVICES.value,
            jobs=flags.JOBS.value,
            curves=path_of(flags.CURVES),
        )


def plan() -> None:
    if flags.WORKDIR.present:
        raise InputError("--workdir is not for --mode=plan: it writes nothing")
    enable_x64_for(flags.CONFIG.value.dtype)  # nothing is computed, so no other setting matters
    with ending_at_once():
        print_plan(flags.CONFIG.value, flags.TARGET.value, flags.DEVICES.value)


def workdirs() -> list[pathlib.Path]:
    if not all(flags.WORKDIRS.value):
        raise InputError(
            f"--workdirs={','.join(flags.WORKDIRS.value)}: an entry between commas is empty"
        )
    return [check_path("workdirs", name) for name in flags.WORKDIRS.value]


def explain_run() -> None:
    directory, which = path_of(flags.WORKDIR), flags.CHECKPOINT.value or "best"
    dtypes = [loaded.config_of(directory).dtype]
    with renamed("workdir", "workdirs"):
        dtypes += [loaded.config_of(other).dtype for other in workdirs()]
    _prepare_verdicts(dtypes)
    explain(directory, workdirs(), which, flags.EXAMPLES.value, _moved_data())


def report() -> None:
    directories = workdirs()
    output = path_of(flags.WORKDIR) or pathlib.Path("runs/report")
    side_by_side.compare(directories, output, path_of(flags.CURVES), flags.ONLY.value)


# `takes`: the flags of a mode in addition to --mode and --workdir.
MODES = {
    "train": Mode(
        train,
        takes={
            "config",
            "resume",
            "extend",
            "init_from",
            "checkpoint",
            "torch_key",
            "profile",
            "max_restarts",
            "coordinator",
            "processes",
            "process_id",
            "connect_seconds",
        },
    ),
    "evaluate": Mode(
        evaluate,
        takes={
            "checkpoint",
            "attacks",
            "examples",
            "save_images",
            "norm",
            "epsilon",
            "step_size",
            "data",
            "split",
            "corruptions",
            "moved_data",
        },
        needs=("workdir",),
    ),
    "pseudo_label": Mode(
        label,
        takes={"checkpoint", "unlabeled", "output", "moved_data"},
        needs=("workdir", "output"),
    ),
    "write_data": Mode(write_data, takes={"path", "output"}, needs=("path", "output")),
    "import": Mode(
        import_network,
        takes={"config", "path", "key", "name_map", "torch_optimizer", "epoch"},
        needs=("path", "workdir"),
    ),
    "import_torch": Mode(
        import_network,
        takes={"config", "torch_checkpoint", "torch_key", "name_map", "torch_optimizer", "epoch"},
        needs=("torch_checkpoint", "workdir"),
    ),
    "export_torch": Mode(
        export_torch,
        takes={"checkpoint", "output", "torch_optimizer", "sub_block1"},
        needs=("workdir", "output"),
    ),
    "inspect": Mode(
        inspect_path, takes={"path", "key", "config"}, needs=("path",), optional={"config"}
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
    "explain": Mode(
        explain_run,
        takes={"checkpoint", "examples", "workdirs", "moved_data"},
        needs=("workdir",),
    ),
    "report": Mode(report, takes={"workdirs", "curves", "only"}, needs=("workdirs",)),
    "plan": Mode(plan, takes={"config", "target", "devices"}, needs=("target",)),
}
