"""Every flag of the command line, in absl's one registry: only the command line imports this file."""

from absl import flags
from ml_collections import config_flags

from rwp_jax.distributed import rendezvous
from rwp_jax.hardware.topology import ACCEPTED
from rwp_jax.reproduce.experiments import EXPERIMENTS
from rwp_jax.runs.layout import COLUMNS

CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment, a file of configs/.")
WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "Directory of the run, runs/<config name> by default; of all runs of reproduce; report's to write to; "
    "plan has none.",
)
MODE = flags.DEFINE_string(
    "mode",
    "train",
    "What to do: train, evaluate, pseudo_label, import_torch, export_torch, reproduce, report, explain or "
    "plan.",
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
    ",".join(COLUMNS),
    "evaluate: which columns of the paper's Table 2, comma-separated; pgdN and cwN for N steps.",
)
NORM = flags.DEFINE_string(
    "norm",
    "",
    "evaluate: norm of the attacks, l_inf or l_2, or l_1 (AutoAttack alone); the run's by default.",
)
EPSILON = flags.DEFINE_string(
    "epsilon",
    "",
    "evaluate: radius of the attacks, as 8/255 or 0.1, the run's by default; several, comma-separated, "
    "make a sweep with a picture.",
)
STEP_SIZE = flags.DEFINE_string(
    "step_size",
    "",
    "evaluate: step size of PGD and C&W; by default the run's, in proportion to epsilon, or for another "
    "norm the paper's (2/8 of epsilon for l_inf, 15/128 for l_2).",
)
DATA = flags.DEFINE_string(
    "data", "", "evaluate: another data set by its name, or an npz; the run's by default."
)
SPLIT = flags.DEFINE_string(
    "split", "test", "evaluate: images to attack: test, train or validation."
)
CORRUPTIONS = flags.DEFINE_string(
    "corruptions",
    "",
    "evaluate: a directory of CIFAR-10-C or CIFAR-100-C (NAME.npy, labels.npy): natural accuracy by "
    "corruption and severity, in place of attacks.",
)
EXAMPLES = flags.DEFINE_integer(
    "examples",
    0,
    "evaluate: so many images, the first ones (of each severity with --corruptions); 0: all. explain: so "
    "many training images; 0: 256.",
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
    "reproduce: runs of every setting, from seed 0; by default 5 for overfitting and gamma, and for fig1c "
    "at the scale digits, else 1.",
)
JOBS = flags.DEFINE_integer(
    "jobs", 1, "reproduce: how many runs to train at a time, on CPUs, each on cores of its own."
)
LIST = flags.DEFINE_bool("list", False, "reproduce: only print the runs, their state and cost.")
ONLY = flags.DEFINE_string(
    "only",
    "",
    "reproduce: the runs to do now, shell patterns of names, comma-separated. report: the published curves "
    "to draw, likewise.",
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
