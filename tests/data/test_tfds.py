"""Data sets of tensorflow-datasets, written by its own writer, without network and tensorflow."""

import io
import urllib.request

import numpy as np
import pytest
from PIL import Image

from rwp_jax.data import sources
from rwp_jax.errors import InputError

tfds = pytest.importorskip("tensorflow_datasets")
RNG = np.random.default_rng(0)


def prepare(name, directory, splits):
    """Writes random images in the format in which tensorflow-datasets prepares the data set `name`."""
    builder = tfds.builder(name, data_dir=directory, file_format="array_record")
    builder.data_path.mkdir(parents=True)
    writer = tfds.core.SequentialWriter(builder.info, 1000, file_format="array_record")
    writer.initialize_splits(list(splits))
    written = {}
    for split, count in splits.items():
        images = RNG.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        labels = np.arange(count) % 10
        written[split] = images, labels
        for image, label in zip(images, labels, strict=True):
            png = io.BytesIO()
            Image.fromarray(image).save(png, "png")
            png.seek(0)
            more = {"id": "x", "coarse_label": 0}
            features = {k: v for k, v in more.items() if k in builder.info.features}
            writer.add_examples({split: [{"image": png, "label": label, **features}]})
    writer.close_all()
    return written


def assert_equal_sets(images, labels, written):
    """Compares regardless of order, because tensorflow-datasets shuffles records."""
    by_pixels = lambda images, labels: sorted(
        (x.tobytes(), int(y)) for x, y in zip(images, labels, strict=True)
    )
    assert by_pixels(images, labels) == by_pixels(*written)


@pytest.mark.parametrize(
    ("name", "classes"), [("cifar10", 10), ("cifar100", 100), ("svhn_cropped", 10)]
)
def test_a_prepared_data_set_is_read(name, classes, tmp_path):
    written = prepare(name, tmp_path, {"train": 24, "test": 11})
    data = sources.load(name, data_dir=str(tmp_path))
    assert data.num_classes == classes and data.y_train.dtype == np.int32
    assert_equal_sets(data.x_train, data.y_train, written["train"])
    assert_equal_sets(data.x_test, data.y_test, written["test"])


def test_svhns_extra_images_join_the_training_set(tmp_path):
    written = prepare("svhn_cropped", tmp_path, {"train": 10, "test": 3, "extra": 7})
    data = sources.load("svhn_cropped", data_dir=str(tmp_path), svhn_extra=True)
    both = [
        np.concatenate(arrays) for arrays in zip(written["train"], written["extra"], strict=True)
    ]
    assert_equal_sets(data.x_train, data.y_train, both)
    assert len(sources.load("svhn_cropped", data_dir=str(tmp_path)).x_train) == 10


def test_a_damaged_data_set_is_refused_in_one_line(tmp_path):
    prepare("cifar10", tmp_path, {"train": 5, "test": 5})
    for path in tmp_path.rglob("*train*"):
        path.write_bytes(b"damaged")
    with pytest.raises(
        InputError, match=f"config.data.name='cifar10': reading it from {tmp_path}"
    ) as error:
        sources.load("cifar10", data_dir=str(tmp_path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["cifar100", "svhn_cropped"])
def test_without_network_the_directory_is_named(name, tmp_path, monkeypatch):
    def refuse(request, timeout):
        raise OSError("no network")

    find = sources.importlib.util.find_spec
    monkeypatch.setattr(
        sources.importlib.util,
        "find_spec",
        lambda name: find("json") if name == "tensorflow" else find(name),
    )
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    with pytest.raises(
        InputError, match="cannot be downloaded .no network.: copy a prepared"
    ) as error:
        sources.load(name, data_dir=str(tmp_path))
    assert str(tmp_path / name) in str(error.value) and "\n" not in str(error.value)
