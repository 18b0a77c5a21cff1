"""Reads user-supplied files: data sets as npz, extra images with pseudo-labels as npz or pickle."""

import contextlib
import pathlib
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from rwp_jax.data.unpickle import ArraysOnly, PickledArray
from rwp_jax.errors import InputError, check_path, first_line, prefixed

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
IMAGES, LABELS, CONFIDENCES = "data", "extrapolated_targets", "confidences"
MIN_SIZE = 8  # pixels


def read_npz(path: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Reads x_train, y_train, x_test, y_test: images uint8 [N, H, W, C], labels as int32 [N].

    Raises:
      InputError: if an array is missing or has another dtype or shape, or labels are not in [0, classes)
        with every class in y_train.
    """
    file = check_path("config.data.path", path) if path else None
    if file is None or not file.is_file():
        raise InputError(
            f"config.data.path={path!r} is not a file: config.data.name='npz' needs the path of an .npz "
            f"with {', '.join(ARRAYS)}"
        )
    x_train, y_train, x_test, y_test = _npz_arrays(file, ARRAYS)
    for part, images, labels in (("train", x_train, y_train), ("test", x_test, y_test)):
        check_images(f"{file}: x_{part}", images)
        _check_labels(f"{file}: y_{part}", labels, len(images))
    if x_train.shape[1:] != x_test.shape[1:]:
        raise InputError(f"{file}: x_train is {x_train.shape} but x_test {x_test.shape}")
    num_classes = int(y_train.max()) + 1
    absent = np.setdiff1d(np.arange(min(num_classes, len(y_train) + 1)), y_train)
    if absent.size:
        raise InputError(
            f"{file}: y_train has label {num_classes - 1} but no example of class {absent[0]}: labels "
            "must be in [0, classes), and every class must occur"
        )
    if y_test.max() >= num_classes:
        raise InputError(
            f"{file}: y_test has label {y_test.max()}, y_train only labels up to {num_classes - 1}"
        )
    return x_train, y_train.astype(np.int32), x_test, y_test.astype(np.int32)


def read_extra(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads extra images and their pseudo-labels, -1 for "no label".

    Args:
      path: an .npz, or a pickle such as RST's ti_500K_pseudo_labeled.pickle: a dict with `data` uint8
        [N, H, W, C] and `extrapolated_targets` [N]. A pickle may only contain NumPy arrays and plain
        containers.

    Returns:
      Images uint8 [N, H, W, C] and labels int32 [N].

    Raises:
      InputError: if the file cannot be read or has other contents.
    """
    file = check_path("config.extra_data.path", path)
    if not file.is_file():
        raise InputError(f"config.extra_data.path={path!r} is not a file")
    names = (IMAGES, LABELS)
    images, labels = (_npz_arrays if zipfile.is_zipfile(file) else _pickle_arrays)(file, names)
    check_images(f"{file}: {IMAGES}", images)
    _check_labels(f"{file}: {LABELS}", labels, len(images), lowest=-1)
    return images, labels.astype(np.int32)


def read_images(path: str) -> np.ndarray:
    """Reads the images `data`, uint8 [N, H, W, C], of an npz; raises InputError for other contents."""
    file = check_path("unlabeled", path)
    if not file.is_file():
        raise InputError(f"unlabeled={path} is not a file")
    with prefixed("unlabeled="):
        (images,) = _npz_arrays(file, (IMAGES,))
        check_images(f"{file}: {IMAGES}", images)
    return images


def read_arrays(file: pathlib.Path, kind: str) -> dict[str, np.ndarray]:
    """Reads all arrays and lists of integers of a file, by name; none if it holds no dict of names.

    Args:
      file: path of the file.
      kind: `npz` or `pickle`.

    Raises:
      InputError: if it cannot be read, or a pickle holds more than arrays and plain containers.
    """
    if kind == "npz":
        with _opened(file) as arrays:
            return {name: arrays[name] for name in arrays.files}
    content, found = _unpickled(file), {}
    for key, value in content.items() if isinstance(content, dict) else ():
        name = key.decode("latin1") if isinstance(key, bytes) else str(key)
        with contextlib.suppress(InputError):  # a text, or a container of others
            found[name] = _as_array(name, value)
    return found


def check_images(what: str, images: np.ndarray) -> None:
    """Raises InputError unless the array holds images uint8 [N, H, W, C] that networks accept."""
    if images.dtype != np.uint8 or images.ndim != 4 or not images.size:
        raise InputError(
            f"{what} is {images.dtype} {images.shape}, must be uint8 [N, H, W, C] with N > 0"
        )
    if min(images.shape[1:3]) < MIN_SIZE:
        raise InputError(
            f"{what} is {images.shape}, must be [N, H, W, C] with H and W at least {MIN_SIZE}"
        )


def _check_labels(what: str, labels: np.ndarray, count: int, lowest: int = 0) -> None:
    if not np.issubdtype(labels.dtype, np.integer) or labels.shape != (count,):
        raise InputError(f"{what} is {labels.dtype} {labels.shape}, must be integers [{count}]")
    if labels.min() < lowest:
        accepted = "[0, classes)" if lowest == 0 else "[0, classes), or -1 for none"
        raise InputError(f"{what} has label {labels.min()}, labels must be in {accepted}")
    if labels.max() >= 2**31:
        raise InputError(f"{what} has label {labels.max()}, labels must be below 2^31")


def _require(file: pathlib.Path, names, held) -> None:
    missing = [name for name in names if name not in held]
    if missing:
        raise InputError(
            f"{file}: {', '.join(missing)} missing; it must hold {', '.join(names)}, "
            f"and holds {', '.join(map(str, held)) or 'nothing'}"
        )


def _npz_arrays(file: pathlib.Path, names) -> list[np.ndarray]:
    with _opened(file) as arrays:
        _require(file, names, arrays.files)
        return [arrays[name] for name in names]


@contextlib.contextmanager
def _opened(file: pathlib.Path) -> Iterator[Any]:
    """Opens an npz; turns what NumPy raises in the `with` block into an InputError."""
    if not zipfile.is_zipfile(file):  # NumPy would suggest unpickling it
        raise InputError(f"{file}: cannot be read as an .npz file (it is not one, or is truncated)")
    try:
        with np.load(file, allow_pickle=False) as arrays:
            yield arrays
    except InputError:
        raise
    except Exception as error:  # NumPy and zipfile raise many types for damaged files
        raise InputError(f"{file}: cannot be read as an .npz file ({first_line(error)})") from None


def _unpickled(file: pathlib.Path) -> Any:
    try:
        with file.open("rb") as stream:
            return ArraysOnly(stream, encoding="latin1").load()
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
    except Exception as error:  # damaged pickles raise many types
        raise InputError(
            f"{file}: cannot be read as an .npz file or a pickle ({first_line(error)})"
        ) from None


def _pickle_arrays(file: pathlib.Path, names) -> list[np.ndarray]:
    content = _unpickled(file)
    if not isinstance(content, dict):
        raise InputError(
            f"{file}: the pickle holds a {type(content).__name__}, must be a dict with "
            f"{', '.join(names)}"
        )
    _require(file, names, [key if key in names else repr(key)[:50] for key in content])
    return [_as_array(f"{file}: {name}", content[name]) for name in names]


def _as_array(what: str, value) -> np.ndarray:
    if isinstance(value, PickledArray) and value.values is not None:
        return value.values
    if isinstance(value, list) and all(type(entry) is int for entry in value):
        try:
            return np.array(value, np.int64)
        except OverflowError:
            pass
    raise InputError(f"{what} must be an array or a list of integers")
