"""Inspects files and directories of images and labels."""

import collections
import pathlib
from typing import Any

import numpy as np

from rwp_jax.data import readers, stored
from rwp_jax.errors import InputError
from rwp_jax.evaluation.corruptions import SEVERITIES, read_corruptions
from rwp_jax.inspection.findings import Findings, counts, shape

_BATCH_SIZE = 3 * 32 * 32  # pixels of an image of CIFAR
_CIFAR_LABELS = ("labels", "fine_labels")


def is_corruptions(path: pathlib.Path) -> bool:
    """Returns whether a directory has the files of CIFAR-10-C."""
    return (path / "labels.npy").is_file()


def inspect_corruptions(path: pathlib.Path) -> Findings:
    """Inspects a directory of corrupted images; raises InputError if it is malformed."""
    try:
        arrays, labels = read_corruptions(path)
    except InputError as error:
        raise InputError(str(error).replace("corruptions=", "path=", 1)) from None
    first = next(iter(arrays.values()))
    rows = [
        ("corruptions", f"{len(arrays)}: {', '.join(arrays)}"),
        ("images", f"{shape(first)} each, {len(labels) // SEVERITIES:,} by severity"),
        ("labels", counts(labels[: len(labels) // SEVERITIES])),
    ]
    usage = [f"MAIN --mode evaluate --workdir RUN --corruptions {path}"]
    return Findings("corrupted images, as CIFAR-10-C", rows, [], usage)


def inspect_set(path: pathlib.Path) -> Findings:
    """Inspects a directory of --mode write_data, all images; raises InputError if it is damaged."""
    images, labels = stored.open_set(path)
    rows = [("images", f"{shape(images)}, {images.nbytes / 1e9:.2f} GB")]
    rows += [("labels", counts(labels)), ("digest", images.digest)]
    problems = _problems(lambda: collections.deque(images.blocks(), maxlen=0))
    usage = [f"MAIN --config FILE --config.extra_data.path={path}"]
    return Findings("extra images on disk", rows, problems, usage)


def inspect_data(path: pathlib.Path, kind: str) -> Findings | None:
    """Inspects images and labels.

    Args:
      path: an npz or a pickle.
      kind: `npz` or `pickle`.

    Returns:
      What it is; None if it holds something else.

    Raises:
      InputError: if it cannot be read.
    """
    arrays = readers.read_arrays(path, kind)
    if set(readers.ARRAYS) & arrays.keys():
        return _data_set(path, arrays)
    names = next(
        (n for n in readers.EXTRA_NAMES if arrays.keys() >= set(n)), readers.EXTRA_NAMES[0]
    )
    if names[1] in arrays or (names[0] in arrays and _is_images(arrays[names[0]])):
        return _extra(path, arrays, names[1])
    labels = next((arrays[name] for name in _CIFAR_LABELS if name in arrays), None)
    images = arrays.get("data")
    if labels is not None and images is not None and images.shape[1:] == (_BATCH_SIZE,):
        return _cifar(arrays, images, np.asarray(labels))
    return _others(arrays)


def _is_images(array: Any) -> bool:
    return getattr(array, "ndim", 0) == 4 and array.dtype == np.uint8


def _part(images: np.ndarray, labels: np.ndarray) -> str:
    return f"{shape(images)}, {counts(labels)}"


def _data_set(path: pathlib.Path, arrays: dict[str, Any]) -> Findings:
    rows = [(name, shape(array)) for name, array in arrays.items() if name not in readers.ARRAYS]
    kind, usage = (
        "a data set",
        [f"MAIN --config FILE --config.data.name=npz --config.data.path={path}"],
    )
    usage.append(f"MAIN --mode evaluate --workdir RUN --data {path}")
    try:
        x_train, y_train, x_test, y_test = readers.read_npz(str(path))
    except InputError as error:
        rows = [(name, shape(array)) for name, array in arrays.items()]
        return Findings(kind, rows, [str(error)], usage)
    rows = [("train", _part(x_train, y_train)), ("test", _part(x_test, y_test)), *rows]
    return Findings(kind, rows, [], usage)


def _extra(path: pathlib.Path, arrays: dict[str, Any], labels: str) -> Findings:
    rows = [(name, shape(array)) for name, array in arrays.items()]
    if labels not in arrays:
        usage = [f"MAIN --mode pseudo_label --workdir RUN --unlabeled {path} --output FILE"]
        problems = _problems(lambda: readers.read_images(str(path)))
        return Findings("images without labels", rows, problems, usage)
    problems = _problems(lambda: readers.read_extra(str(path)))
    if not problems:
        rows.append(("labels", counts(arrays[labels])))
    usage = [f"MAIN --config FILE --config.extra_data.path={path}"]
    return Findings("extra images with pseudo-labels", rows, problems, usage)


def _problems(read) -> list[str]:
    try:
        read()
    except InputError as error:
        return [str(error)]
    return []


def _cifar(arrays: dict[str, Any], images: np.ndarray, labels: np.ndarray) -> Findings:
    rows = [
        ("images", f"{len(images):,} of 32x32x3, {images.dtype}, a row each, by channels"),
        ("labels", counts(labels)),
    ]
    problems = [] if labels.shape == (len(images),) else ["images and labels differ in number"]
    usage = [
        "as an npz: x = data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), saved as x_train, y_train, "
        "x_test, y_test",
        "MAIN --config.data.name=cifar10 (or cifar100) reads tensorflow-datasets instead",
    ]
    return Findings("a batch of CIFAR for Python", rows, problems, usage)


def _others(arrays: dict[str, Any]) -> Findings | None:
    """Describes images and labels under other names, if there are both and their numbers fit."""
    images = {name: array for name, array in arrays.items() if _is_images(array)}
    labels = {
        name: array
        for name, array in arrays.items()
        if getattr(array, "ndim", 0) == 1
        and array.dtype.kind in "iu"
        and any(len(array) == len(x) for x in images.values())
    }
    if not images or not labels:
        return None
    rows = [(name, shape(array)) for name, array in images.items()]
    rows += [(name, f"{shape(array)}, {counts(array)}") for name, array in labels.items()]
    usage = [f"with the names {', '.join(readers.ARRAYS)} in an npz, --config.data.path reads it"]
    return Findings("images and labels under other names", rows, [], usage)
