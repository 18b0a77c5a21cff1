"""Trains a classifier by adversarial training with weight perturbation.

    python main.py --config configs/digits_at_rwp.py [--workdir DIR] [--config.KEY=VALUE ...]
    python main.py --mode evaluate --workdir DIR [--attacks pgd20,autoattack] [--examples N]
    python main.py --mode pseudo_label --workdir DIR [--unlabeled FILE] --output FILE
    python main.py --mode import_torch --torch_checkpoint FILE --config FILE --workdir DIR
    python main.py --mode export_torch --workdir DIR --output FILE
    python main.py --mode reproduce --experiment fig2a --scale digits --workdir DIR [--list]
    python main.py --mode report --workdirs DIR,DIR [--curves FILE]
    python main.py --mode explain --workdir DIR [--workdirs DIR,DIR] [--checkpoint last] [--examples N]
    python main.py --mode plan --config FILE --target h100 [--devices 8]

Every key is explained in configs/default.py. A run that was interrupted continues when the same
command is given again. Exit codes: 0 finished, 1 the loss became non-finite, 2 bad input, 75 stopped by
SIGTERM, or in training by Ctrl-C, with everything saved (a second one stops at once), or because another
process of the run ended, 130 by Ctrl-C outside training.
"""

import importlib
import os
import pathlib
import sys

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from rwp_jax.command_line.parsing import Mode, check_flags, parse_flags
from rwp_jax.distributed import devices, processes, rendezvous
from rwp_jax.distributed.preemption import EXIT_CODE, Interrupted, end_on_sigterm
from rwp_jax.errors import InputError, first_line
from rwp_jax.evaluation import pseudo_label, table2
from rwp_jax.explain.explain import explain
from rwp_jax.hardware.plan import print_plan
from rwp_jax.hardware.topology import ACCEPTED
from rwp_jax.models.convolution import prefer_eigen
from rwp_jax.pytorch import export, import_
from rwp_jax.report import side_by_side
from rwp_jax.reproduce.experiments import EXPERIMENTS
from rwp_jax.reproduce.reproduce import reproduce
from rwp_jax.runs import loaded
from rwp_jax.training import self_training
from rwp_jax.training.divergence import NonFiniteLoss

CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment, a file of configs/.")
WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "Directory of the run, runs/<config name> by default. reproduce: of all its runs; report: to write to.",
)
MODE = flags.DEFINE_string(
    "mode",
    "train",
    "train, evaluate, pseudo_label, import_torch, export_torch, reproduce, report, explain or plan.",
)
RESUME = flags.DEFINE_bool("resume", True, "Continue a run of the same config in the workdir.")
PROFILE = flags.DEFINE_string(
    "profile", "", "train: a directory for a trace of ten steps, for TensorBoard and Perfetto."
)
COORDINATOR = flags.DEFINE_string(
    "coordinator",
    None,
    "train on several hosts: HOST:PORT of process 0; TPU pods, SLURM, Open MPI and Kubernetes say it "
    "themselves. See docs/pods.md.",
)
PROCESSES = flags.DEFINE_integer("processes", None, "With --coordinator: how many processes.")
PROCESS_ID = flags.DEFINE_integer("process_id", None, "With --coordinator: this one's, from 0.")
CONNECT_SECONDS = flags.DEFINE_integer(
    "connect_seconds", rendezvous.CONNECT_SECONDS, "How long to wait for the other processes."
)
CHECKPOINT = flags.DEFINE_string(
    "checkpoint",
    None,
    "evaluate, explain, pseudo_label, export_torch: the run's checkpoint: best (by the test set, as in the "
    "paper), best_by_validation, last, or best_ema and last_ema for averaged weights; by default last to "
    "label, best otherwise.",
)
ATTACKS = flags.DEFINE_string(
    "attacks",
    ",".join(table2.COLUMNS),
    "evaluate: which columns of the paper's Table 2, comma-separated.",
)
EXAMPLES = flags.DEFINE_integer(
    "examples",
    0,
    "evaluate: so many test images, the first ones; 0: all. explain: so many training images; 0: 256.",
)
SAVE_IMAGES = flags.DEFINE_bool(
    "save_images", False, "evaluate: keep attacked images in evaluation.npz."
)
UNLABELED = flags.DEFINE_string(
    "unlabeled",
    "",
    "pseudo_label: an .npz with images `data`, uint8 NHWC; by default the training images whose labels "
    "the run's config.data.labeled_examples left out.",
)
OUTPUT = flags.DEFINE_string(
    "output",
    "",
    "pseudo_label: the .npz to write. export_torch: the .pth or .safetensors to write.",
)
TORCH_CHECKPOINT = flags.DEFINE_string(
    "torch_checkpoint", "", "import_torch: a state dict of torch.save, or .safetensors."
)
TORCH_OPTIMIZER = flags.DEFINE_string(
    "torch_optimizer",
    "",
    "import_torch: the state dict of its SGD to read, for the momentum. export_torch: one to write.",
)
EPOCH = flags.DEFINE_integer(
    "epoch",
    0,
    "import_torch: epochs the network was trained for, if the run is to continue; 0: all.",
)
SUB_BLOCK1 = flags.DEFINE_bool(
    "sub_block1",
    False,
    "export_torch: add the unused block of RST's and the original TRADES's WideResNets.",
)
EXPERIMENT = flags.DEFINE_string(
    "experiment", "", f"reproduce: what of the paper, one of {', '.join(EXPERIMENTS)}."
)
SCALE = flags.DEFINE_string(
    "scale",
    "digits",
    "reproduce: digits (minutes a run on a CPU), short (minutes on an H100), or cifar10 (as in the paper).",
)
SEEDS = flags.DEFINE_integer(
    "seeds",
    None,
    "reproduce: runs of every setting, from seed 0; by default 5 for overfitting and gamma, else 1.",
)
JOBS = flags.DEFINE_integer(
    "jobs", 1, "reproduce: how many runs to train at a time, on CPUs, each on cores of its own."
)
LIST = flags.DEFINE_bool("list", False, "reproduce: only print the runs, their state and cost.")
ONLY = flags.DEFINE_string(
    "only",
    "",
    "reproduce: the runs to do now, report: the published curves to draw; shell patterns of names, "
    "comma-separated.",
)
SETTINGS = flags.DEFINE_multi_string(
    "override",
    [],
    "reproduce: KEY=VALUE of the config, in all runs, or PATTERN:KEY=VALUE in those whose names match; "
    "may be repeated.",
)
TARGET = flags.DEFINE_string(
    "target", None, f"plan, reproduce --list: hardware that need not be there: {ACCEPTED}."
)
DEVICES = flags.DEFINE_integer(
    "devices", None, "With --target: how many; by default one GPU, or all of a TPU slice."
)
WORKDIRS = flags.DEFINE_list(
    "workdirs",
    [],
    "report: directories of runs, comma-separated. explain: runs whose landscapes to draw beside.",
)
CURVES = flags.DEFINE_string(
    "curves", "", "report, reproduce: a CSV file of published learning curves to draw besides."
)


def default_workdir() -> pathlib.Path:
    """runs/NAME for configs/NAME.py, runs/NAME_ARGUMENT for configs/NAME.py:ARGUMENT."""
    path, _, argument = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")
    return pathlib.Path("runs") / "_".join(filter(None, [pathlib.Path(path).stem, argument]))


def use_compilation_cache() -> None:
    """Keeps compiled programs between runs, unless the user configured JAX's cache otherwise."""
    if not jax.config.jax_compilation_cache_dir:
        cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        jax.config.update("jax_compilation_cache_dir", os.path.join(cache, "rwp-jax", "xla"))


def train() -> None:
    rendezvous.connect(COORDINATOR.value, PROCESSES.value, PROCESS_ID.value, CONNECT_SECONDS.value)
    if CONFIG.value.dtype == "float32":
        prefer_eigen()
    directory = pathlib.Path(WORKDIR.value) if WORKDIR.value else default_workdir()
    profile = pathlib.Path(PROFILE.value) if PROFILE.value else None
    self_training.train(CONFIG.value, directory, RESUME.value, profile)


def label() -> None:
    directory, output = pathlib.Path(WORKDIR.value), pathlib.Path(OUTPUT.value)
    pseudo_label.pseudo_label(directory, UNLABELED.value, output, CHECKPOINT.value or "last")


def evaluate() -> None:
    directory = pathlib.Path(WORKDIR.value)
    if loaded.read_config(directory).dtype != "float64":
        prefer_eigen()
    devices.split_cpu()
    which = CHECKPOINT.value or "best"
    table2.evaluate(directory, which, ATTACKS.value, EXAMPLES.value, SAVE_IMAGES.value)


def optimizer_file() -> pathlib.Path | None:
    return pathlib.Path(TORCH_OPTIMIZER.value) if TORCH_OPTIMIZER.value else None


def import_torch() -> None:
    directory, checkpoint = pathlib.Path(WORKDIR.value), pathlib.Path(TORCH_CHECKPOINT.value)
    import_.import_torch(CONFIG.value, directory, checkpoint, optimizer_file(), EPOCH.value)


def export_torch() -> None:
    directory, output = pathlib.Path(WORKDIR.value), pathlib.Path(OUTPUT.value)
    which = CHECKPOINT.value or "best"
    export.export_torch(directory, which, output, optimizer_file(), SUB_BLOCK1.value)


def load_config(name: str):
    """The config of configs/NAME.py, of NAME:ARGUMENT with an argument."""
    module, _, argument = name.partition(":")
    return importlib.import_module(f"configs.{module}").get_config(*filter(None, [argument]))


def curves_file() -> pathlib.Path | None:
    return pathlib.Path(CURVES.value) if CURVES.value else None


def reproduce_paper() -> None:
    reproduce(
        EXPERIMENT.value,
        SCALE.value,
        pathlib.Path(WORKDIR.value),
        load_config,
        seeds=SEEDS.value,
        overrides=SETTINGS.value,
        only=ONLY.value,
        show_plan=LIST.value,
        target=TARGET.value,
        devices=DEVICES.value,
        jobs=JOBS.value,
        curves=curves_file(),
    )


def plan() -> None:
    if WORKDIR.present:
        raise InputError("--workdir is not for --mode=plan: it writes nothing")
    print_plan(CONFIG.value, TARGET.value, DEVICES.value)


def workdirs() -> list[pathlib.Path]:
    if not all(WORKDIRS.value):
        raise InputError(f"--workdirs={','.join(WORKDIRS.value)}: an entry between commas is empty")
    return [pathlib.Path(name) for name in WORKDIRS.value]


def explain_run() -> None:
    directory, which = pathlib.Path(WORKDIR.value), CHECKPOINT.value or "best"
    if loaded.read_config(directory).dtype != "float64":
        prefer_eigen()
    explain(directory, workdirs(), which, EXAMPLES.value)


def report() -> None:
    directories = workdirs()
    output = pathlib.Path(WORKDIR.value or "runs/report")
    side_by_side.compare(directories, output, curves_file(), ONLY.value)


# Beside --mode and --workdir.
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


def parse(argv: list[str]) -> list[str]:
    return parse_flags(argv, MODES)


def main(_) -> None:
    check_flags(MODE.value, MODES)
    logging.set_verbosity(logging.WARNING)
    MODES[MODE.value].run()


if __name__ == "__main__":
    use_compilation_cache()
    end_on_sigterm("main.py: ended by SIGTERM")
    sys.stdout.reconfigure(errors="replace")  # ± and ∞ on terminals without them
    try:
        app.run(main, flags_parser=parse)
    except KeyboardInterrupt:
        print("main.py: interrupted; the same command continues", file=sys.stderr)
        sys.exit(130)
    except InputError as error:
        print(f"main.py: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:  # a directory that cannot be written to, a full disk
        print(f"main.py: {error}", file=sys.stderr)
        sys.exit(2)
    except NonFiniteLoss as error:
        print(f"main.py: {error}", file=sys.stderr)
        sys.exit(1)
    except Interrupted as error:
        print(f"main.py: {error}", file=sys.stderr)
        sys.exit(EXIT_CODE)
    except (jax.errors.JaxRuntimeError, ValueError) as error:  # by the moment at which it shows
        if not processes.lost_another(error):
            raise
        print(
            f"main.py: another process ended or cannot be reached ({first_line(error)}); the same command, "
            "on all hosts, continues after the newest checkpoint",
            file=sys.stderr,
            flush=True,
        )
        os._exit(EXIT_CODE)  # an orderly end would wait for it
