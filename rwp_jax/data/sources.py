"""Data sets as uint8 arrays in memory: scikit-learn's digits, npz files, tensorflow-datasets."""

import importlib.util
import itertools
import pathlib
import sys
import urllib.request
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from rwp_jax.data import readers
from rwp_jax.data.stored import StoredImages
from rwp_jax.errors import InputError, check_path, first_line, renamed

# Archives that tensorflow-datasets downloads (for svhn, the first of three).
_TFDS = {
    "cifar10": "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    "cifar100": "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
    "svhn_cropped": "http://ufldl.stanford.edu/housenumbers/train_32x32.mat",
}
NAMES = ("digits", "npz", *_TFDS)
_NETWORK_TIMEOUT = 10  # seconds after which a download counts as impossible


class DataSize(NamedTuple):
    """Sizes of a named data set, known without reading it."""

    train: int
    test: int
    image_shape: tuple[int, int, int]
    num_classes: int


NAMED = {
    "digits": DataSize(1437, 360, (8, 8, 1), 10),
    "cifar10": DataSize(50_000, 10_000, (32, 32, 3), 10),
    "cifar100": DataSize(50_000, 10_000, (32, 32, 3), 100),
    "svhn_cropped": DataSize(73_257, 26_032, (32, 32, 3), 10),
}
SVHN_EXTRA = 531_131


class Dataset(NamedTuple):
    """A data set. Images are uint8 [N, H, W, C], labels int32 [N] in [0, num_classes).

    `x_extra` and `y_extra` are additional training images with pseudo-labels, or -1 for "no label"; None if
    there are none. Extra images may be on disk. `x_validation` and `y_validation` are held out of training;
    None if nothing is held out.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    num_classes: int
    x_extra: np.ndarray | StoredImages | None = None
    y_extra: np.ndarray | None = None
    x_validation: np.ndarray | None = None
    y_validation: np.ndarray | None = None


def images_to_choose_from(data) -> int:
    """Returns how many images a named data set has to choose train_examples from; `data` is config.data."""
    size = NAMED[data.name]
    # Digits have no official split: images not used for training are used for testing.
    extra = SVHN_EXTRA * data.get("svhn_extra", False)
    return size.train + size.test * (data.name == "digits") + extra


def size_of_named(data) -> DataSize:
    """Returns the sizes of a named data set, without held-out images; `data` is config.data."""
    size, kept = NAMED[data.name], data.get("train_examples", 0)
    if kept and data.name == "digits":
        size = size._replace(test=images_to_choose_from(data) - kept)
    train = kept or size.train + SVHN_EXTRA * data.get("svhn_extra", False)
    return size._replace(train=train - data.get("validation_examples", 0))


def load(
    name: str,
    path: str = "",
    data_dir: str = "",
    svhn_extra: bool = False,
    train_examples: int = 0,
    validation_examples: int = 0,
    labeled_examples: int = 0,
) -> Dataset:
    """Loads a data set.

    Args:
      name: `digits`, `npz`, `cifar10`, `cifar100` or `svhn_cropped`.
      path: path of the file, for `npz`.
      data_dir: directory of tensorflow-datasets; empty for its default, ~/tensorflow_datasets.
      svhn_extra: whether `svhn_cropped` also trains on its 531,131 extra images and their labels.
      train_examples: number of training examples to keep, a fixed choice stratified by class; 0 keeps all.
        `digits`, which has no official split, tests on the others of its 1,797 images; 0 trains on 1,437.
      validation_examples: number of these to hold out, chosen likewise, before labeled_examples applies.
      labeled_examples: number of training examples that keep their labels, a fixed choice stratified by
        class; the rest become extra data without labels. 0 keeps all labels.

    Raises:
      InputError: if the name is unknown, the file lacks expected arrays, the data set is neither prepared
        nor can be, or there are fewer examples than are to be kept, held out or labelled.
    """
    if svhn_extra and name != "svhn_cropped":
        raise InputError(
            f"config.data.svhn_extra=True is for svhn_cropped, not config.data.name={name!r}"
        )
    if path and name != "npz":
        raise InputError(f"config.data.path={path!r} is for npz, not config.data.name={name!r}")
    if name == "digits":
        data = _digits(train_examples)
    elif name == "npz":
        x_train, y_train, x_test, y_test = readers.read_npz(path)
        data = Dataset(x_train, y_train, x_test, y_test, max(int(y_train.max()) + 1, 2))
    elif name in _TFDS:
        data = _tfds(name, data_dir, ("train", "extra") if svhn_extra else ("train",))
    else:
        raise InputError(f"config.data.name={name!r} must be one of {', '.join(NAMES)}")
    if train_examples and name != "digits":
        key = "config.data.train_examples"
        kept, _ = _divide(key, data.y_train, data.num_classes, train_examples)
        data = data._replace(x_train=data.x_train[kept], y_train=data.y_train[kept])
    if validation_examples:
        key = "config.data.validation_examples"
        held_out, rest = _divide(key, data.y_train, data.num_classes, validation_examples)
        data = data._replace(
            x_train=data.x_train[rest],
            y_train=data.y_train[rest],
            x_validation=data.x_train[held_out],
            y_validation=data.y_train[held_out],
        )
    return _keep_labels(data, labeled_examples) if labeled_examples else data


def load_named(data: str, data_dir: str = "") -> Dataset:
    """Loads the data set that the argument `data` specifies: a name or the path of an .npz.

    Raises:
      InputError: naming the argument, if there is no such data set.
    """
    file = data.lower().endswith(".npz")
    if file and not check_path("data", data).is_file():
        raise InputError(f"data={data} is not a file")
    names = [name for name in NAMES if name != "npz"]
    if not file and data not in names:
        raise InputError(f"data={data!r} must be one of {', '.join(names)}, or the path of an .npz")
    with renamed("config.data.path", "data"), renamed("config.data.name", "data"):
        return load("npz", data) if file else load(data, data_dir=data_dir)


def with_extra(data: Dataset, path: str, images, labels, use_labels: bool) -> Dataset:
    """Adds the extra images and labels of the file `path`, replacing existing ones.

    Raises:
      InputError: if images differ in size from the data set's, a label is out of range, or labels end so
        early that they are those of another data set.
    """
    if images.shape[1:] != data.x_train.shape[1:]:
        raise InputError(
            f"{path}: images are {images.shape[1:]}, must be {data.x_train.shape[1:]} as in the data set"
        )
    if labels.max() >= data.num_classes:
        raise InputError(
            f"{path}: has pseudo-label {labels.max()}, the data set has labels up to "
            f"{data.num_classes - 1}"
        )
    if use_labels and 0 < labels.max() + 1 < data.num_classes / 2:
        raise InputError(
            f"{path}: has pseudo-labels up to {labels.max()} only, the data set has {data.num_classes} "
            "classes: they are not of the same classes"
        )
    return data._replace(x_extra=images, y_extra=labels if use_labels else np.full_like(labels, -1))


def _divide(key: str, labels, num_classes: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns indices of `count` examples, a fixed choice stratified by class, and of the others."""
    from sklearn.model_selection import train_test_split

    low, high = num_classes, len(labels) - num_classes
    if not low <= count <= high:
        raise InputError(
            f"{key}={count} must be 0 or in [{low}, {high}] for {len(labels)} images of "
            f"{num_classes} classes"
        )
    if np.bincount(labels).min() < 2:
        raise InputError(f"{key}={count} needs at least two images of every class")
    return train_test_split(
        np.arange(len(labels)), train_size=count, random_state=0, stratify=labels
    )


def _keep_labels(data: Dataset, count: int) -> Dataset:
    key = "config.data.labeled_examples"
    labelled, rest = _divide(key, data.y_train, data.num_classes, count)
    return data._replace(
        x_train=data.x_train[labelled],
        y_train=data.y_train[labelled],
        x_extra=data.x_train[rest],
        y_extra=np.full(len(rest), -1, np.int32),
    )


def _digits(train_examples: int) -> Dataset:
    """Loads scikit-learn's 1,797 scanned digits of 8x8 pixels; a fifth, or all but `train_examples`, are
    for testing."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = digits.target.astype(np.int32)
    if train_examples:
        train, test = _divide("config.data.train_examples", labels, 10, train_examples)
        return Dataset(images[train], labels[train], images[test], labels[test], 10)
    x_train, x_test, y_train, y_test = train_test_split(
        images, labels, test_size=360, random_state=0, stratify=labels
    )
    return Dataset(x_train, y_train, x_test, y_test, 10)


def _tfds(name: str, data_dir: str, train_splits: tuple[str, ...]) -> Dataset:
    """Reads a data set of tensorflow-datasets; prepares it first if necessary."""
    for module in ("tensorflow_datasets", "importlib_resources"):
        if importlib.util.find_spec(module) is None:
            raise InputError(
                f"config.data.name={name!r} needs {module}: "
                "pip install tensorflow-datasets importlib_resources"
            )
    num_classes, url = NAMED[name].num_classes, _TFDS[name]
    root = check_path("config.data.data_dir", data_dir or "~/tensorflow_datasets")
    try:
        import tensorflow_datasets as tfds

        builder = tfds.builder(name, data_dir=root, file_format="array_record")
        if not pathlib.Path(builder.data_dir, "dataset_info.json").exists():
            _prepare(builder, root / "downloads", url)
        train, test = (_read(builder, splits) for splits in (train_splits, ("test",)))
    except InputError:
        raise
    except Exception as error:  # such as an older format of tfds, damaged records, missing packages
        raise InputError(
            f"config.data.name={name!r}: reading it from {root} failed ({first_line(error)}); it must be "
            "prepared as array_record: for a new copy, choose an empty directory as config.data.data_dir"
        ) from None
    return Dataset(*train, *test, num_classes)


def _read(builder, splits) -> tuple[np.ndarray, np.ndarray]:
    counts = [builder.info.splits[split].num_examples for split in splits]
    images = np.empty((sum(counts), *builder.info.features["image"].shape), np.uint8)
    labels = np.empty(sum(counts), np.int32)
    records = itertools.chain.from_iterable(map(builder.as_data_source, splits))
    bar = tqdm(records, f"reading {builder.name}", len(labels), disable=not sys.stderr.isatty())
    for i, record in enumerate(bar):
        images[i], labels[i] = record["image"], record["label"]
    return images, labels


def _prepare(builder, downloads: pathlib.Path, url: str) -> None:
    """Downloads and converts the data set; first raises InputError if this is bound to fail."""
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
                f"{builder.name} there from a machine with network access"
            ) from None
    try:
        builder.download_and_prepare(file_format="array_record")
    except Exception as error:  # whatever the download or the conversion raises
        raise InputError(f"{where} and could not be prepared ({first_line(error)})") from None
