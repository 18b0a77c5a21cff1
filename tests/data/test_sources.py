import importlib.util
import os
import pathlib

import numpy as np
import pytest

from rwp_jax.data import sources
from rwp_jax.errors import InputError
from tests.small import write_two_classes

REAL_IMAGES = os.environ.get("RWP_JAX_TEST_DATA")  # a directory with cifar10_lossless.npz


def arrays(**changes):
    rng = np.random.default_rng(0)
    good = {
        "x_train": rng.integers(0, 256, (20, 8, 8, 3), dtype=np.uint8),
        "y_train": np.arange(20) % 5,
        "x_test": rng.integers(0, 256, (7, 8, 8, 3), dtype=np.uint8),
        "y_test": np.arange(7) % 5,
    }
    return {name: value for name, value in (good | changes).items() if value is not None}


def test_digits_are_fixed_and_stratified():
    one, two = sources.load("digits"), sources.load("digits")
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)
    assert one.x_train.shape == (1437, 8, 8, 1) and one.x_test.shape == (360, 8, 8, 1)
    assert one.x_train.dtype == np.uint8 and one.x_train.max() == 255 and one.num_classes == 10
    assert np.bincount(one.y_test).min() >= 34
    everything = np.concatenate([one.x_train, one.x_test])
    assert len(np.unique(everything.reshape(1797, -1), axis=0)) == 1797, "no image in both parts"


def test_npz(tmp_path):
    np.savez(tmp_path / "data.npz", **arrays())
    data = sources.load("npz", str(tmp_path / "data.npz"))
    np.testing.assert_array_equal(data.x_train, arrays()["x_train"])
    assert data.y_train.dtype == np.int32 and data.num_classes == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_test": None}, "y_test missing"),
        ({"x_train": np.zeros((20, 8, 8, 3))}, "x_train is float64"),
        ({"x_train": np.zeros((20, 64), np.uint8)}, r"must be uint8 \[N, H, W, C\]"),
        ({"x_train": np.zeros((0, 8, 8, 3), np.uint8)}, "N > 0"),
        ({"x_train": np.zeros((20, 4, 8, 3), np.uint8)}, "H and W at least 8"),
        ({"x_test": np.zeros((7, 8, 8, 1), np.uint8)}, "but x_test"),
        ({"y_train": np.arange(19)}, r"must be integers \[20\]"),
        ({"y_train": np.zeros(20)}, "y_train is float64"),
        ({"y_train": np.arange(20) - 1}, "label -1"),
        ({"y_train": np.arange(20) % 4 + 1}, "label 4 but no example of class 0"),
        ({"y_train": np.full(20, 10**10)}, "label 10000000000, labels must be below 2.31"),
        ({"y_test": np.arange(7) + 3}, "y_test has label 9, y_train only labels up to 4"),
    ],
)
def test_npz_refusals_name_file_and_array(tmp_path, changes, message):
    path = tmp_path / "data.npz"
    np.savez(path, **arrays(**changes))
    with pytest.raises(InputError, match=message) as error:
        sources.load("npz", str(path))
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_npz_that_is_no_npz(tmp_path):
    for content in (b"", b"PK\3\4 broken", b"text"):
        (tmp_path / "data.npz").write_bytes(content)
        with pytest.raises(InputError, match="cannot be read as an .npz file"):
            sources.load("npz", str(tmp_path / "data.npz"))
    for path in ("", str(tmp_path), str(tmp_path / "missing.npz")):
        with pytest.raises(InputError, match="is not a file"):
            sources.load("npz", path)


def test_objects_are_not_unpickled(tmp_path):
    np.savez(tmp_path / "data.npz", **arrays(y_train=np.array([print] * 20, object)))
    with pytest.raises(InputError, match="cannot be read"):
        sources.load("npz", str(tmp_path / "data.npz"))


def test_unknown_name():
    with pytest.raises(InputError, match="config.data.name='mnist' must be one of digits, npz"):
        sources.load("mnist")


@pytest.mark.parametrize("package", ["tensorflow_datasets", "tensorflow"])
def test_what_tfds_needs_is_named(monkeypatch, tmp_path, package):
    if package == "tensorflow":
        pytest.importorskip("tensorflow_datasets")
    find = importlib.util.find_spec
    hide = lambda name, *rest: None if name == package else find(name, *rest)
    monkeypatch.setattr(importlib.util, "find_spec", hide)
    with pytest.raises(InputError, match="pip install tensorflow-"):
        sources.load("cifar10", data_dir=str(tmp_path))
    assert not any(tmp_path.iterdir())


@pytest.mark.skipif(not REAL_IMAGES, reason="RWP_JAX_TEST_DATA names no directory of real images")
def test_real_cifar10_images():
    data = sources.load("npz", str(pathlib.Path(REAL_IMAGES) / "cifar10_lossless.npz"))
    assert data.x_train.shape[1:] == (32, 32, 3) and data.num_classes == 10
    assert 110 < data.x_train.mean() < 130


def test_few_digits_train_and_all_others_test():
    """The choice is fixed and stratified, and no image is in both sets."""
    data, again = (sources.load("digits", train_examples=300) for _ in range(2))
    assert (len(data.y_train), len(data.y_test)) == (300, 1497)
    assert set(np.bincount(data.y_train)) <= {29, 30, 31}
    np.testing.assert_array_equal(data.x_train, again.x_train)
    whole = sources.load("digits")
    as_rows = lambda *images: sorted(map(bytes, np.concatenate(images)))
    assert as_rows(data.x_train, data.x_test) == as_rows(whole.x_train, whole.x_test)
    parts = sources.load("digits", train_examples=300, validation_examples=100)
    assert as_rows(parts.x_train, parts.x_validation) == as_rows(data.x_train)
    with pytest.raises(InputError, match=r"config.data.train_examples=1797 must be .*\[10, 1787\]"):
        sources.load("digits", train_examples=1797)


def test_few_images_of_a_file_train_on_the_same_test_set(tmp_path):
    path = write_two_classes(tmp_path / "data.npz", train=50, test=20)
    whole, few = sources.load("npz", path), sources.load("npz", path, train_examples=12)
    assert np.bincount(few.y_train).tolist() == [6, 6]
    assert set(map(bytes, few.x_train)) < set(map(bytes, whole.x_train))
    np.testing.assert_array_equal(few.x_test, whole.x_test)


def test_held_out_images_are_a_stratified_part_of_the_training_set():
    whole, parts = sources.load("digits"), sources.load("digits", validation_examples=200)
    assert (len(parts.y_train), len(parts.y_validation)) == (len(whole.y_train) - 200, 200)
    joined = np.concatenate([parts.x_train, parts.x_validation])
    as_rows = lambda images: sorted(map(bytes, images))
    assert as_rows(joined) == as_rows(whole.x_train)
    assert set(np.bincount(parts.y_validation)) <= {19, 20, 21}
    np.testing.assert_array_equal(parts.x_test, whole.x_test)
    again = sources.load("digits", validation_examples=200, labeled_examples=100)
    np.testing.assert_array_equal(again.x_validation, parts.x_validation)
    assert len(again.y_train) == 100 and len(again.x_extra) == len(parts.y_train) - 100
    with pytest.raises(InputError, match="config.data.validation_examples=9 must be 0 or in"):
        sources.load("digits", validation_examples=9)


@pytest.mark.parametrize(
    ("labels", "use_labels", "accepted"),
    [([0, 3, -1], True, False), ([4, -1, -1], True, True), ([-1, -1, -1], True, True)]
    + [([0, 3, -1], False, True)],
)
def test_extra_images_of_other_classes(labels, use_labels, accepted):
    """Labels that all lie in the first half of the classes are those of another data set."""
    data = sources.load("digits")
    extra = data.x_train[:3], np.int32(labels)
    if accepted:
        assert len(sources.with_extra(data, "1m.npz", *extra, use_labels).x_extra) == 3
        return
    message = "1m.npz: has pseudo-labels up to 3 only, the data set has 10 classes"
    with pytest.raises(InputError, match=message):
        sources.with_extra(data, "1m.npz", *extra, use_labels)
