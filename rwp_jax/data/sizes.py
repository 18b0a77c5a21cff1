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
