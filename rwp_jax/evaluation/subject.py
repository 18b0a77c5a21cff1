"""The subject of an evaluation: a network, images and a threat model, by default the run's own."""

import hashlib
import pathlib
from typing import NamedTuple

import numpy as np

from rwp_jax.attacks.arguments import check_radius
from rwp_jax.data import sources
from rwp_jax.errors import InputError, check_choice, check_path, named_in
from rwp_jax.names import norm_name
from rwp_jax.runs.finished_run import FinishedRun
from rwp_jax.runs.loaded import load_run

SPLITS = ("test", "train", "validation")
# The paper's step sizes as fractions of epsilon, for norms other than the run's; PGD does not support L_1.
_STEP_SHARE = {"l_inf": 2 / 8, "l_2": 15 / 128, "l_1": 0}


class Changes(NamedTuple):
    """Differences of an evaluation from the run's config.

    Attributes:
      norm: norm of the perturbations, in any spelling; "" for the run's. `l_1` is only for AutoAttack.
      epsilons: radii, one evaluation each; () for the run's. Required if the norm is not the run's.
      step_size: step size of PGD and C&W. If None, the run's step size scaled in proportion to epsilon, or
        the paper's if the norm is not the run's.
      data: name of a data set or path of an npz; "" for the run's.
      split: `test`, `train` or `validation`.
      paths: where the run's data are now, such as (("data.path", "new.npz"),), see `runs.config.PATHS`.
    """

    norm: str = ""
    epsilons: tuple[float, ...] = ()
    step_size: float | None = None
    data: str = ""
    split: str = "test"
    paths: tuple[tuple[str, str], ...] = ()


AS_TRAINED = Changes()


class Subject(NamedTuple):
    """A network, the images to evaluate it on and the threat model.

    Attributes:
      run: the trained network.
      images: uint8 [N, H, W, C].
      labels: int32 [N].
      norm: `l_inf`, `l_2` or `l_1`.
      epsilon: radius in that norm, for pixels in [0, 1].
      step_size: step size of PGD and C&W.
      data: name of the data set, or path of the file.
      split: split of the data set that the images belong to.
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
    directory: pathlib.Path, which: str, examples: int, changes: Changes = AS_TRAINED
) -> list[Subject]:
    """Loads a checkpoint and the images to evaluate it on.

    Args:
      directory: directory of the run.
      which: checkpoint, such as `best`.
      examples: number of images, from the first; 0 for all.
      changes: differences from the run's config.

    Returns:
      A subject for each radius, in ascending order.

    Raises:
      InputError: if there is no such run or the changes do not fit it.
    """
    if examples < 0:
        raise InputError(f"examples={examples} must be positive, or 0 for all")
    check_choice("split", changes.split, SPLITS)
    run = load_run(directory, which, dict(changes.paths))
    config, threat = run.config, run.config.threat
    changes = _without_the_runs_own(changes, config)
    norm = norm_name("norm", changes.norm or threat.norm)
    if norm != threat.norm and not changes.epsilons:
        raise InputError(
            f"norm={norm}: epsilon= is missing; the run's is a radius in {threat.norm}"
        )
    images, labels = _images(directory, run, changes)
    if examples > len(labels):
        raise InputError(
            f"examples={examples}: there are only {len(labels)} {changes.split} images"
        )
    count = examples or len(labels)
    images, labels = images[:count], labels[:count]
    subjects = []
    for epsilon in sorted(set(changes.epsilons)) or [threat.epsilon]:
        step_size = _checked_sizes(config, changes, norm, epsilon, images.shape[1:])
        folder = folder_name(config, which, examples, changes, epsilon)
        data = changes.data or config.data.path or config.data.name
        attacker = norm, epsilon, step_size
        subjects.append(Subject(run, images, labels, *attacker, data, changes.split, folder))
    if len({subject.folder for subject in subjects}) < len(subjects):
        raise InputError("epsilon= has two radii that are equal to six digits")
    return subjects


def _without_the_runs_own(changes: Changes, config) -> Changes:
    """Returns the changes without `data` if it names the run's own data set.

    The splits of the run's own data are the ones that its config selects.
    """
    own = config.data
    place = lambda path: check_path("data", path).resolve()
    same_file = own.path and changes.data and place(changes.data) == place(own.path)
    if changes.data and (same_file or changes.data == own.name != "npz"):
        return changes._replace(data="")
    return changes


def _checked_sizes(config, changes: Changes, norm: str, epsilon: float, image_shape) -> float:
    """Returns the step size; raises InputError if it or the radius is outside [0, diameter)."""
    if changes.epsilons:
        check_radius("epsilon", epsilon, norm, image_shape)
    else:
        with named_in("config.threat", "epsilon"):
            check_radius("epsilon", epsilon, norm, image_shape)
    if changes.step_size is not None:
        return check_radius("step_size", changes.step_size, norm, image_shape)
    step_size = _step_size(config, norm, epsilon)
    try:
        return check_radius("step_size", step_size, norm, image_shape)
    except InputError as error:
        raise InputError(
            f"step_size= is missing: the run's, in proportion to epsilon={epsilon:g}, is out of range "
            f"({error})"
        ) from None


def _step_size(config, norm: str, epsilon: float) -> float:
    """Returns the run's step size in proportion to epsilon, or the paper's for another norm."""
    threat, own = config.threat, config.evaluation.step_size
    if (norm, epsilon) == (threat.norm, threat.epsilon):
        return own
    if norm == threat.norm and threat.epsilon:
        return own * (epsilon / threat.epsilon)
    return _STEP_SHARE[norm] * epsilon


def checkpoint_folder(which: str, examples: int) -> str:
    """Names the directory of an evaluation of a checkpoint on the first `examples` images, 0 for all."""
    return f"{which}_{examples}" if examples else which


def folder_name(
    config, which: str, examples: int, changes: Changes, epsilon: float | None = None
) -> str:
    """Names the directory of an evaluation by the checkpoint and every difference from the run's config.

    Without epsilon, the name is that of a sweep over epsilon.
    """
    threat = config.threat
    norm = norm_name("norm", changes.norm or threat.norm)
    parts = [checkpoint_folder(which, examples)]
    if norm != threat.norm:
        parts.append(norm)
    if epsilon is not None and (norm, epsilon) != (threat.norm, threat.epsilon):
        parts.append(f"epsilon_{epsilon:.6g}")
    step = changes.step_size
    if step is not None and (epsilon is None or step != _step_size(config, norm, epsilon)):
        parts.append(f"step_{step:.6g}")
    changes = _without_the_runs_own(changes, config)
    if changes.data:
        parts.append(f"data_{path_name(changes.data)}")
    return "_".join(parts if changes.split == "test" else [*parts, changes.split])


def path_name(path: str) -> str:
    """Returns a unique name for a file or directory: its stem and a digest of its whole path.

    Names of data sets are returned unchanged.
    """
    if path in sources.NAMES:
        return path
    place = check_path("data", path).resolve()
    return f"{place.stem}_{hashlib.sha256(str(place).encode()).hexdigest()[:6]}"


def _images(directory, run: FinishedRun, changes: Changes) -> tuple[np.ndarray, np.ndarray]:
    """Loads images and labels of the split; raises InputError if the network cannot take them."""
    own, config = not changes.data, run.config.data
    named = changes.data, config.data_dir
    data = run.data if own else sources.load_named(*named)
    images, labels = getattr(data, f"x_{changes.split}"), getattr(data, f"y_{changes.split}")
    if images is None:
        raise InputError(
            f"split={changes.split}: the run has no held-out images (config.data.validation_examples)"
            if own
            else f"split={changes.split}: data={changes.data} has only test and train"
        )
    what, shape = f"workdir={directory}" if own else f"data={changes.data}", images.shape[1:]
    if not run.takes(shape) or labels.max() >= run.num_classes:
        raise InputError(
            f"{what}: the network takes images {run.sizes()} of {run.num_classes} classes, the data set "
            f"has images {'x'.join(map(str, shape))} and labels up to {labels.max()}"
        )
    if data.num_classes < run.num_classes:
        print(
            f"{what}: the network has {run.num_classes} classes, the data set "
            f"{config.name if own else changes.data} has only {data.num_classes}: was the network trained "
            "on it?"
        )
    return images, labels.astype(np.int32)
