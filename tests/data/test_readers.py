import pickle

import numpy as np
import pytest

from rwp_jax.data import readers
from rwp_jax.errors import InputError

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
LABELS = np.arange(12) % 5


class Payload:
    """An object that calls a function when it is unpickled."""

    def __reduce__(self):
        return print, ("unpickled",)


def write_pickle(path, content, protocol=4):
    path.write_bytes(pickle.dumps(content, protocol))
    return str(path)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("labels", [LABELS, LABELS.tolist(), LABELS.astype(np.int8)])
def test_pickles_of_arrays_and_lists_are_read(tmp_path, protocol, labels):
    content = {"data": IMAGES, "extrapolated_targets": labels, "more": {"a": (1.5, [None, "b"])}}
    images, read = readers.read_extra(write_pickle(tmp_path / "p.pickle", content, protocol))
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(read, LABELS)
    assert images.dtype == np.uint8 and read.dtype == np.int32


def test_a_pickle_by_old_numpy_is_read(tmp_path):
    """Pickles by NumPy 1 refer to numpy.core, which NumPy 2 renamed to numpy._core."""
    content = {"data": IMAGES, "extrapolated_targets": LABELS}
    old = pickle.dumps(content, 2).replace(b"numpy._core.", b"numpy.core.")
    assert b"numpy.core.multiarray" in old
    (tmp_path / "old.pickle").write_bytes(old)
    np.testing.assert_array_equal(readers.read_extra(str(tmp_path / "old.pickle"))[0], IMAGES)


def test_npz(tmp_path):
    np.savez(tmp_path / "p.npz", data=IMAGES, extrapolated_targets=LABELS - 1, confidences=LABELS)
    images, labels = readers.read_extra(str(tmp_path / "p.npz"))
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(labels, LABELS - 1)


def test_names_of_generated_sets(tmp_path):
    """The names of images that diffusion models generate; RST's count where a file has both."""
    np.savez(tmp_path / "1m.npz", image=IMAGES, label=LABELS.astype(np.int64))
    written = write_pickle(tmp_path / "p.pickle", {"label": LABELS, "image": IMAGES})
    for path in (str(tmp_path / "1m.npz"), written):
        images, labels = readers.read_extra(path)
        np.testing.assert_array_equal(images, IMAGES)
        np.testing.assert_array_equal(labels, LABELS)
    both = {
        "data": IMAGES,
        "extrapolated_targets": LABELS,
        "image": IMAGES[:1],
        "label": LABELS[:1],
    }
    np.savez(tmp_path / "both.npz", **both)
    assert len(readers.read_extra(str(tmp_path / "both.npz"))[1]) == len(LABELS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"image": IMAGES},
            "label missing; it must hold data, .* or image, label, and holds image",
        ),
        ({"image": IMAGES, "label": LABELS - 2}, "label has label -2"),
        ({"image": IMAGES[..., 0], "label": LABELS}, r"image is uint8 \(12, 8, 8\), must be"),
        ({"images": IMAGES}, "data, extrapolated_targets missing; .*, and holds images"),
    ],
)
def test_refused_sets_in_npz(tmp_path, content, message):
    np.savez(tmp_path / "p.npz", **content)
    with pytest.raises(InputError, match=message) as error:
        readers.read_extra(str(tmp_path / "p.npz"))
    assert str(error.value).startswith(str(tmp_path / "p.npz")) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"data": IMAGES, "extrapolated_targets": Payload()},
            "asks for builtins.print, which is refused",
        ),
        (
            {"data": np.array([Payload()]), "extrapolated_targets": LABELS},
            "holds an array of dtype 'O8', must be numeric",
        ),
        (
            [IMAGES, LABELS],
            "the pickle holds a list, must be a dict with data, extrapolated_targets",
        ),
        ({"data": IMAGES}, "extrapolated_targets missing; it must hold"),
        ({"data": IMAGES, "extrapolated_targets": LABELS[1:]}, r"must be integers \[12\]"),
        ({"data": IMAGES, "extrapolated_targets": LABELS / 2}, "is float64"),
        ({"data": IMAGES, "extrapolated_targets": LABELS - 2}, "label -2, .* or -1 for none"),
        ({"data": IMAGES / 255, "extrapolated_targets": LABELS}, "data is float64"),
        ({"data": [[1], [2, 3]], "extrapolated_targets": LABELS}, "must be an array or a list"),
        ({"data": IMAGES, "extrapolated_targets": [2**70] * 12}, "must be an array or a list"),
        ({"data": IMAGES, "extrapolated_targets": LABELS + 2**32}, "labels must be below 2.31"),
        ({"data": IMAGES, "extrapolated_targets": np.array([None] * 12)}, "array of dtype 'O8'"),
        ({"data\nlines": IMAGES}, "data, extrapolated_targets missing"),
    ],
)
def test_refusals_name_the_file(tmp_path, content, message, capsys):
    path = write_pickle(tmp_path / "p.pickle", content)
    with pytest.raises(InputError, match=message) as error:
        readers.read_extra(path)
    assert str(error.value).startswith(path) and "\n" not in str(error.value)
    assert not capsys.readouterr().out, "nothing of the pickle may run"


class Forged:
    """An object array over bytes from the pickle, whose reading would crash NumPy."""

    def __reduce__(self):
        return np.ndarray, ((1,), np.dtype("O"), b"A" * 8)


class ForgedNumbers:
    """An array of numbers with too few bytes, made by NumPy's own constructor."""

    def __reduce__(self):
        return np.ndarray, ((2**20,), np.dtype("u1"), b"A")


@pytest.mark.parametrize("forged", [Forged(), ForgedNumbers()])
@pytest.mark.parametrize("protocol", [2, 5])
def test_numpys_own_callables_are_out_of_reach(tmp_path, forged, protocol):
    for content in (
        {"data": forged, "extrapolated_targets": LABELS},
        {"data": IMAGES, "extrapolated_targets": [forged] * 12},
    ):
        with pytest.raises(InputError, match="p.pickle"):
            readers.read_extra(write_pickle(tmp_path / "p.pickle", content, protocol))


@pytest.mark.parametrize("protocol", range(6))
def test_byte_and_memory_order(tmp_path, protocol):
    """Reads big-endian labels, images in Fortran order and NumPy scalars."""
    content = {"data": np.asfortranarray(IMAGES), "extrapolated_targets": LABELS.astype(">i4")}
    content["mean"] = np.float64(0.5)
    images, labels = readers.read_extra(write_pickle(tmp_path / "p.pickle", content, protocol))
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(labels, LABELS)


def test_damaged_files(tmp_path):
    whole = pickle.dumps({"data": IMAGES, "extrapolated_targets": LABELS})
    for content in (b"", whole[:100], b"text"):
        (tmp_path / "p.pickle").write_bytes(content)
        with pytest.raises(InputError, match="cannot be read as an .npz file or a pickle"):
            readers.read_extra(str(tmp_path / "p.pickle"))
    with pytest.raises(InputError, match="config.extra_data.path='.*' is not a file"):
        readers.read_extra(str(tmp_path))


def test_images_to_label(tmp_path):
    np.savez(tmp_path / "u.npz", data=IMAGES)
    np.testing.assert_array_equal(readers.read_images(str(tmp_path / "u.npz")), IMAGES)
    np.savez(tmp_path / "u.npz", images=IMAGES)
    with pytest.raises(InputError, match="data missing; it must hold data, and holds images"):
        readers.read_images(str(tmp_path / "u.npz"))
    with pytest.raises(InputError, match="unlabeled=.* is not a file"):
        readers.read_images(str(tmp_path / "v.npz"))
