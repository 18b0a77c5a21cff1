"""Sizes of the data sets that have a name, known without reading them."""

from typing import NamedTuple


class DataSize(NamedTuple):
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


def images_to_choose_from(data) -> int:
    """Images that `data`, the config.data of a set that has a name, chooses its train_examples from."""
    size = NAMED[data.name]
    # The split of digits is ours: what does not train tests.
    extra = SVHN_EXTRA * data.get("svhn_extra", False)
    return size.train + size.test * (data.name == "digits") + extra


def size_of_named(data) -> DataSize:
    """Sizes of the data set that `data`, a config.data, names; training images are those not held out."""
    size, kept = NAMED[data.name], data.get("train_examples", 0)
    if kept and data.name == "digits":
        size = size._replace(test=images_to_choose_from(data) - kept)
    train = kept or size.train + SVHN_EXTRA * data.get("svhn_extra", False)
    return size._replace(train=train - data.get("validation_examples", 0))
