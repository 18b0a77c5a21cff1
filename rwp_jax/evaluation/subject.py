"""What an evaluation is of: a network, images and a threat model, by default those of its run."""

import pathlib
from typing import NamedTuple

import numpy as np

from rwp_jax.attacks.arguments import check_radius
from rwp_jax.data import sources
from rwp_jax.errors import InputError, check_choice, renamed
from rwp_jax.names import AUTOATTACK_NORMS, norm_name
from rwp_jax.runs.finished_run import FinishedRun
from rwp_jax.runs.loaded import load_run

SPLITS = ("test", "train", "validation")
# Step size over epsilon in the paper's settings, for a norm that the run's own is not of; L_1 has no PGD.
_STEP_SHARE = {"l_inf": 2 / 8, "l_2": 15 / 128, "l_1": 0}


class Setting(NamedTuple):
    """What an evaluation changes of what the run's config says.

    Attributes:
      norm: of the perturbations, in any spelling; "" for the run's. `l_1` is one of AutoAttack alone.
      epsilons: radii, one evaluation each; () for the run's. Another norm needs them.
      step_size: of PGD and C&W; None for the run's, in proportion to epsilon.
      data: name of a data set or path of an npz; "" for the run's.
      split: `test`, or `train` or `validation` of the same data.
    """

    norm: str = ""
    epsilons: tuple[float, ...] = ()
    step_size: float | None = None
    data: str = ""
    split: str = "test"


AS_TRAINED = Setting()


class Subject(NamedTuple):
    """What is evaluated, by which attackers.

    Attributes:
      run: with the network.
      images: uint8 [N, H, W, C].
      labels: int32 [N].
      norm: `l_inf`, `l_2` or `l_1`.
      epsilon: radius in that norm, pixels being in [0, 1].
      step_size: of PGD and C&W.
      data: name of the data set, or path of the file.
      split: of it.
      folder: name of the evaluation's directory.
    """

    run: FinishedRun
    images: np.ndarray
    labels: np.ndarray
    norm: str
    epsilon: float
    step_size: float
    data: str
    split: str
    folder: str


def load_subjects(
    directory: pathlib.Path, which: str, examples: int, setting: Setting = AS_TRAINED
) -> list[Subject]:
    """Loads a checkpoint and the images that the setting means.

    Args:
      directory: of the run.
      which: checkpoint, such as `best`.
      examples: how many images, the first ones; 0 for all.
      setting: what is other than in the run's config.

    Returns:
      A subject for each radius, in ascending order.

    Raises:
      InputError: where there is no such run, or the setting does not fit it.
    """
    if examples < 0:
        raise InputError(f"examples={examples} must be positive, or 0 for all")
    check_choice("split", setting.split, SPLITS)
    run = load_run(directory, which)
    threat = run.config.threat
    norm = norm_name("norm", setting.norm or threat.norm, AUTOATTACK_NORMS)
    if norm != threat.norm and not setting.epsilons:
        raise InputError(
            f"norm={norm}: epsilon= is missing, and the run's is a radius in {threat.norm}"
        )
    images, labels = _images(directory, run, setting)
    if examples > len(labels):
        raise InputError(
            f"examples={examples}: there are only {len(labels)} {setting.split} images"
        )
    count = examples or len(labels)
    images, labels = images[:count], labels[:count]
    subjects = []
    for epsilon in sorted(set(setting.epsilons)) or [threat.epsilon]:
        check_radius("epsilon", epsilon, norm, images.shape[1:])
        step_size = setting.step_size
        if step_size is None:
            step_size = _step_size(run.config, norm, epsilon)
        check_radius("step_size", step_size, norm, images.shape[1:])
        folder = folder_name(run.config, which, examples, setting, epsilon)
        attackers = norm, epsilon, step_size
        data = setting.data or run.config.data.path or run.config.data.name
        subjects.append(Subject(run, images, labels, *attackers, data, setting.split, folder))
    return subjects


def _step_size(config, norm: str, epsilon: float) -> float:
    """The run's, in proportion to epsilon."""
    threat, own = config.threat, config.evaluation.step_size
    if (norm, epsilon) == (threat.norm, threat.epsilon):
        return own
    if norm == threat.norm and threat.epsilon:
        return own * (epsilon / threat.epsilon)
    return _STEP_SHARE[norm] * epsilon


def folder_name(
    config, which: str, examples: int, setting: Setting, epsilon: float | None = None
) -> str:
    """Names the checkpoint, and after it all that is not as in the run's config.

    Without epsilon it is the name of a sweep over it.
    """
    threat = config.threat
    norm = norm_name("norm", setting.norm or threat.norm, AUTOATTACK_NORMS)
    parts = [which, *([str(examples)] if examples else [])]
    if norm != threat.norm:
        parts.append(norm)
    if epsilon is not None and (norm, epsilon) != (threat.norm, threat.epsilon):
        parts.append(f"epsilon_{epsilon:.6g}")
    step = setting.step_size
    if step is not None and (epsilon is None or step != _step_size(config, norm, epsilon)):
        parts.append(f"step_{step:.6g}")
    if setting.data:
        parts.append(pathlib.Path(setting.data).stem)
    return "_".join(parts if setting.split == "test" else [*parts, setting.split])


def load_named(data: str, data_dir: str = "") -> sources.Dataset:
    """The data set of a name or a file, as the argument `data` gives it; raises InputError."""
    file = data.endswith(".npz")
    if not file:
        check_choice("data", data, [name for name in sources.NAMES if name != "npz"])
    with renamed("config.data.path", "data"), renamed("config.data.name", "data"):
        return sources.load("npz", data) if file else sources.load(data, data_dir=data_dir)


def _images(directory, run: FinishedRun, setting: Setting) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of the split, which the network can take."""
    own, config = not setting.data, run.config.data
    data = sources.load(**config.to_dict()) if own else load_named(setting.data, config.data_dir)
    images, labels = getattr(data, f"x_{setting.split}"), getattr(data, f"y_{setting.split}")
    if images is None:
        raise InputError(
            f"split={setting.split}: the run held no images out (config.data.validation_examples)"
            if own
            else f"split={setting.split}: data={setting.data} has test and train alone"
        )
    what = f"workdir={directory}" if own else f"data={setting.data}"
    known, shape = run.image_shape, images.shape[1:]
    fits = shape[2] == known[2] and known[:2] in ((0, 0), shape[:2])
    if not fits or labels.max() >= run.num_classes:
        size = "x".join(str(length or "?") for length in known)
        raise InputError(
            f"{what}: the network takes images {size} of {run.num_classes} classes, the data set has "
            f"images {'x'.join(map(str, shape))} and labels up to {labels.max()}"
        )
    if data.num_classes < run.num_classes:
        print(
            f"{what}: the network tells {run.num_classes} classes apart, the data set "
            f"{config.name if own else setting.data} has only {data.num_classes}: is it the one that it "
            "was trained on?"
        )
    return images, labels.astype(np.int32)
