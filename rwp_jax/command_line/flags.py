"""Every flag of the command line, in absl's one registry: only the command line imports this file."""

from absl import flags
from ml_collections import config_flags

from rwp_jax.distributed import rendezvous
from rwp_jax.hardware.topology import ACCEPTED
from rwp_jax.reproduce.experiments import EXPERIMENTS
from rwp_jax.runs.layout import COLUMNS
from rwp_jax.runs.restarts import MOST

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "The experiment: a file, or a name in configs/."
)
WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "Directory of the run. train: by default runs/<config name>. report: directory of the report, by "
    "default runs/report. reproduce: directory of all its runs. plan, write_data and inspect take none; "
    "the other modes need it.",
)
MODE = flags.DEFINE_string(
    "mode",
    "train",
    "What to do: train, evaluate, pseudo_label, write_data, import (import_torch is its old name), "
    "export_torch, inspect, reproduce, report, explain or plan.",
)
RESUME = flags.DEFINE_bool("resume", True, "Continue a run of the same config in the workdir.")
MAX_RESTARTS = flags.DEFINE_integer(
    "max_restarts",
    MOST,
    "train: restarts in a row that may end without a new checkpoint before training gives up; 0 for any "
    "number.",
)
EXTEND = flags.DEFINE_bool(
    "extend",
    False,
    "Continue the run in the workdir although its config has changed, such as --config.epochs; see "
    "docs/training.md for the keys that may change. The history of changes is kept in config.json.",
)
INIT_FROM = flags.DEFINE_string(
    "init_from",
    "",
    "train: begin a new run with the weights and batch statistics of a run's directory, zoo:NAME, or a "
    "PyTorch state dict (a file of torch.save, .safetensors or .npz), at epoch 0 and with a new optimiser.",
)
PROFILE = flags.DEFINE_string(
    "profile", "", "train: directory for a trace of ten steps, for TensorBoard and Perfetto."
)
COORDINATOR = flags.DEFINE_string(
    "coordinator",
    None,
    "train: HOST:PORT of process 0 where several hosts train; TPU pods, SLURM and Open MPI provide "
    "it. See docs/pods.md.",
)
PROCESSES = flags.DEFINE_integer(
    "processes",
    None,
    "With --coordinator: number of processes. Alone, --processes=1 ignores the cluster's environment.",
)
PROCESS_ID = flags.DEFINE_integer(
    "process_id", None, "With --coordinator: number of this process, from 0."
)
CONNECT_SECONDS = flags.DEFINE_integer(
    "connect_seconds", rendezvous.CONNECT_SECONDS, "Seconds to wait for the other processes."
)
CHECKPOINT = flags.DEFINE_string(
    "checkpoint",
    None,
    "evaluate, explain, export_torch: checkpoint of the run: best (on the test set, as in the paper; the "
    "default), best_by_validation, last, or, of averaged weights, best_ema, best_by_validation_ema and "
    "last_ema. pseudo_label: checkpoint of the run, as for evaluate, by default last. train: checkpoint of "
    "the run that --init_from names, as for evaluate, by default last.",
)
ATTACKS = flags.DEFINE_string(
    "attacks",
    ",".join(COLUMNS),
    "evaluate: columns of the paper's Table 2 to compute, comma-separated; also pgdN and cwN, of N "
    "steps.",
)
NORM = flags.DEFINE_string(
    "norm",
    "",
    "evaluate: norm of the attacks, by default the run's: l_inf, l_2, or l_1 (AutoAttack only). "
    "Another norm needs --epsilon.",
)
EPSILON = flags.DEFINE_string(
    "epsilon",
    "",
    "evaluate: radius of the attacks, such as 8/255 or 0.1, by default the run's; several, "
    "comma-separated, give a sweep with a plot.",
)
STEP_SIZE = flags.DEFINE_string(
    "step_size",
    "",
    "evaluate: step size of PGD and C&W; by default the run's, in proportion to epsilon; for another "
    "norm, 2/8 (l_inf) or 15/128 (l_2) of epsilon, as in the paper.",
)
DATA = flags.DEFINE_string(
    "data", "", "evaluate: another data set, by its name or as an npz; by default the run's."
)
SPLIT = flags.DEFINE_string(
    "split", "test", "evaluate: which images to attack: test, train or validation."
)
CORRUPTIONS = flags.DEFINE_string(
    "corruptions",
    "",
    "evaluate: directory of CIFAR-10-C or CIFAR-100-C (NAME.npy, labels.npy); prints natural accuracy by "
    "corruption and severity instead of running attacks.",
)
EXAMPLES = flags.DEFINE_integer(
    "examples",
    0,
    "evaluate: number of images, from the first (with --corruptions, of each severity); 0: all. explain: "
    "number of training images; 0: 256.",
)
SAVE_IMAGES = flags.DEFINE_bool(
    "save_images", False, "evaluate: keep the attacked images in evaluation.npz."
)
UNLABELED = flags.DEFINE_string(
    "unlabeled",
    "",
    "pseudo_label: npz with the images `data`, uint8 [N, H, W, C]; by default the training images whose "
    "labels the run's config.data.labeled_examples left out.",
)
OUTPUT = flags.DEFINE_string(
    "output",
    "",
    "pseudo_label: npz to write. write_data: directory to write, for --config.extra_data.path. "
    "export_torch: .pth or .safetensors file to write.",
)
PATH = flags.DEFINE_string(
    "path",
    "",
    "import: checkpoint to read: a file of torch.save, a state dict or a tree of Flax as .safetensors or "
    ".npz, msgpack of Flax, a pickle of NumPy arrays, or a directory of orbax or of .npy files. inspect: "
    "run, checkpoint or file of data to describe; --path itself may be left out. write_data: npz with "
    "image and label (or data and extrapolated_targets), a directory of such files, or one of folders of "
    "pictures, a folder for each class; --path itself may be left out.",
)
KEY = flags.DEFINE_string(
    "key",
    "",
    "import, inspect: key of the network in the file, such as ema or models.net, or for PyTorch the "
    "beginning of the names to take, if the file holds several.",
)
NAME_MAP = flags.DEFINE_string(
    "name_map",
    "",
    "import, import_torch: JSON file that maps the names in the checkpoint to ours; see docs/pytorch.md.",
)
TORCH_CHECKPOINT = flags.DEFINE_string(
    "torch_checkpoint",
    "",
    "import_torch: as --path of --mode import.",
)
TORCH_KEY = flags.DEFINE_string(
    "torch_key",
    "",
    "import_torch: as --key of --mode import. train: key of the state dict in the PyTorch file of "
    "--init_from, if it holds several.",
)
TORCH_OPTIMIZER = flags.DEFINE_string(
    "torch_optimizer",
    "",
    "import, import_torch: file with the state dict of torch.optim.SGD, from which the momentum is read "
    "(PyTorch checkpoints only). export_torch: file to which the state dict of torch.optim.SGD is written.",
)
EPOCH = flags.DEFINE_integer(
    "epoch",
    0,
    "import, import_torch: number of epochs that the network was trained for, if training continues; 0: "
    "all.",
)
SUB_BLOCK1 = flags.DEFINE_bool(
    "sub_block1",
    False,
    "export_torch: add the unused block of the WideResNets of RST and of the original TRADES.",
)
EXPERIMENT = flags.DEFINE_string(
    "experiment",
    "",
    f"reproduce: table, figure or claim of the paper, one of {', '.join(EXPERIMENTS)}.",
)
SCALE = flags.DEFINE_string(
    "scale",
    "digits",
    "reproduce: scale of the experiment: digits (minutes per run on a CPU), short (minutes per run on an "
    "H100) or cifar10 (the paper's).",
)
SEEDS = flags.DEFINE_integer(
    "seeds",
    None,
    "reproduce: number of runs of every setting, with seeds from 0; by default 5 for overfitting and "
    "gamma, and for fig1c at the scale digits, otherwise 1.",
)
JOBS = flags.DEFINE_integer(
    "jobs", 1, "reproduce: number of runs trained at a time, on CPUs, each on cores of its own."
)
LIST = flags.DEFINE_bool("list", False, "reproduce: only print the runs with their state and cost.")
ONLY = flags.DEFINE_string(
    "only",
    "",
    "reproduce: runs to do now, as shell patterns of their names, comma-separated. report: published "
    "curves to draw, as shell patterns of their names, comma-separated.",
)
SETTINGS = flags.DEFINE_multi_string(
    "override",
    [],
    "reproduce: KEY=VALUE of the config in all runs, or PATTERN:KEY=VALUE in those whose names match; "
    "may be repeated.",
)
TARGET = flags.DEFINE_string(
    "target",
    None,
    f"plan: hardware to compile for, which need not be present: {ACCEPTED}. reproduce: the same, with "
    "--list.",
)
DEVICES = flags.DEFINE_integer(
    "devices", None, "With --target: number of devices; by default one GPU, or all of a TPU slice."
)
WORKDIRS = flags.DEFINE_list(
    "workdirs",
    [],
    "report: directories of runs, comma-separated. explain: runs whose landscapes are drawn in the same "
    "picture, comma-separated.",
)
CURVES = flags.DEFINE_string(
    "curves", "", "report, reproduce: CSV file of published learning curves to draw as well."
)
MOVED_DATA = flags.DEFINE_multi_string(
    "moved_data",
    [],
    "evaluate, explain, pseudo_label: KEY=PATH, where the run's data are now; --config.data.path=FILE, "
    "--config.data.data_dir=DIR and --config.extra_data.path=FILE are the same.",
)
