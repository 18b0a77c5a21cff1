"""Data sets as uint8 arrays in memory: scikit-learn's digits, npz files, tensorflow-datasets."""

import importlib.util
import pathlib
import urllib.request
from typing import NamedTuple

import numpy as np

from rwp_jax.errors import InputError, first_line

_ARRAYS = ("x_train", "y_train", "x_test", "y_test")
# Classes, and the archive that tensorflow-datasets downloads.
_TFDS = {"cifar10": (10, "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz")}
NAMES = ("digits", "npz", *_TFDS)
_NETWORK_TIMEOUT = 10  # seconds before a download is declared impossible


class Dataset(NamedTuple):
    """Images uint8 [N, H, W, C], labels int32 [N] in [0, num_classes)."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    num_classes: int


def load(name: str, path: str = "", data_dir: str = "") -> Dataset:
    """Loads a data set.

    Args:
      name: `digits`, `npz` or `cifar10`.
      path: of the file, for `npz`.
      data_dir: tensorflow-datasets' directory; empty for its default, ~/tensorflow_datasets.

    Raises:
      InputError: for an unknown name, a file without the expected arrays, a data set that is neither
        prepared nor can be.
    """
    if name == "digits":
        return _digits()
    if name == "npz":
        return _npz(path)
    if name in _TFDS:
        return _tfds(name, data_dir)
    raise InputError(f"config.data.name={name!r} must be one of {', '.join(NAMES)}")


def _digits() -> Dataset:
    """The 1,797 scanned digits of 8x8 pixels that come with scikit-learn, a fifth of them for testing."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = digits.target.astype(np.int32)
    x_train, x_test, y_train, y_test = train_test_split(
        images, labels, test_size=360, random_state=0, stratify=labels
    )
    return Dataset(x_train, y_train, x_test, y_test, 10)


def _npz(path: str) -> Dataset:
    file = pathlib.Path(path)
    if not path or not file.is_file():
        raise InputError(
            f"config.data.path={path!r} is no file: config.data.name='npz' needs the path of an .npz "
            f"with {', '.join(_ARRAYS)}"
        )
    try:
        with np.load(file, allow_pickle=False) as arrays:
            missing = [name for name in _ARRAYS if name not in arrays]
            if missing:
                raise InputError(
                    f"{file}: {', '.join(missing)} missing; it must hold {', '.join(_ARRAYS)}, "
                    f"and holds {', '.join(arrays.files) or 'nothing'}"
                )
            x_train, y_train, x_test, y_test = (arrays[name] for name in _ARRAYS)
    except InputError:
        raise
    except Exception as error:  # NumPy and zipfile raise many kinds for damaged files
        raise InputError(f"{file}: cannot be read as an .npz file ({error})") from None

    for part, images, labels in (("train", x_train, y_train), ("test", x_test, y_test)):
        _check_images(f"{file}: x_{part}", images)
        _check_labels(f"{file}: y_{part}", labels, len(images))
    if x_train.shape[1:] != x_test.shape[1:]:
        raise InputError(f"{file}: x_train is {x_train.shape} but x_test {x_test.shape}")
    num_classes = int(y_train.max()) + 1
    absent = np.setdiff1d(np.arange(min(num_classes, len(y_train) + 1)), y_train)
    if absent.size:
        raise InputError(
            f"{file}: y_train has label {num_classes - 1} but no example of class {absent[0]}: labels "
            "must be in [0, classes) and every class occur"
        )
    if y_test.max() >= num_classes:
        raise InputError(
            f"{file}: y_test has label {y_test.max()}, y_train only labels up to {num_classes - 1}"
        )
    return Dataset(
        x_train, y_train.astype(np.int32), x_test, y_test.astype(np.int32), max(num_classes, 2)
    )


def _check_images(what: str, images) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or not images.size:
        raise InputError(
            f"{what} is {images.dtype} {images.shape}, must be uint8 [N, H, W, C] with N > 0"
        )
    if min(images.shape[1:3]) < 8:
        raise InputError(f"{what} is {images.shape}, height and width must be at least 8")


def _check_labels(what: str, labels, count: int) -> None:
    if not np.issubdtype(labels.dtype, np.integer) or labels.shape != (count,):
        raise InputError(f"{what} is {labels.dtype} {labels.shape}, must be integers [{count}]")
    if labels.min() < 0:
        raise InputError(f"{what} has label {labels.min()}, labels must be in [0, classes)")


def _tfds(name: str, data_dir: str) -> Dataset:
    """Reads a data set prepared by tensorflow-datasets; prepares it first where it is not."""
    for module in ("tensorflow_datasets", "importlib_resources"):
        if importlib.util.find_spec(module) is None:
            raise InputError(
                f"config.data.name={name!r} needs {module}: "
                "pip install tensorflow-datasets importlib_resources"
            )
    num_classes, url = _TFDS[name]
    root = pathlib.Path(data_dir or "~/tensorflow_datasets").expanduser()
    try:
        import tensorflow_datasets as tfds

        builder = tfds.builder(name, data_dir=root, file_format="array_record")
        if not pathlib.Path(builder.data_dir, "dataset_info.json").exists():
            _prepare(builder, root / "downloads", url)
        train, test = (_read(builder.as_data_source(split)) for split in ("train", "test"))
    except InputError:
        raise
    except (
        Exception
    ) as error:  # a data set in tfds's older format, damaged records, missing packages
        raise InputError(
            f"config.data.name={name!r}: reading it from {root} failed ({first_line(error)}); it must be "
            "prepared as array_record: an empty --config.data.data_dir gets a new copy"
        ) from None
    return Dataset(*train, *test, num_classes)


def _read(records) -> tuple[np.ndarray, np.ndarray]:
    images, labels = zip(*((r["image"], r["label"]) for r in records), strict=True)
    return np.stack(images), np.asarray(labels, np.int32)


def _prepare(builder, downloads: pathlib.Path, url: str) -> None:
    """Downloads and converts; says what is missing before tensorflow-datasets tries for minutes."""
    where = f"{builder.name} is not prepared in {builder.data_dir}"
    if importlib.util.find_spec("tensorflow") is None:
        raise InputError(
            f"{where}, and preparing it (once) needs tensorflow: pip install tensorflow-cpu"
        )
    archive = pathlib.PurePosixPath(url).name
    if not any(downloads.rglob(f"*{archive.partition('.')[0]}*")):
        try:
            request = urllib.request.Request(url, method="HEAD")
            urllib.request.urlopen(request, timeout=_NETWORK_TIMEOUT).close()
        except OSError as error:
            raise InputError(
                f"{where} and {url} cannot be downloaded ({error}): copy a prepared "
                f"{builder.name} there from a machine with a network"
            ) from None
    try:
        builder.download_and_prepare(file_format="array_record")
    except Exception as error:  # whatever the download or the conversion meets
        raise InputError(f"{where} and could not be prepared ({first_line(error)})") from None
