"""Image sets on disk: what is written is read, and damage is named."""

import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from rwp_jax.data import stored, writing
from rwp_jax.errors import InputError, TemporaryError
from rwp_jax.files import array_digests, seal

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (50, 8, 9, 3), dtype=np.uint8)
LABELS = RNG.integers(-1, 10, 50)


@pytest.fixture
def written(tmp_path):
    np.savez(tmp_path / "1m.npz", image=IMAGES, label=LABELS)
    writing.write_set(tmp_path / "1m.npz", tmp_path / "set")
    return tmp_path / "set"


def read(images, indices):
    out = np.empty((len(indices), *images.shape[1:]), np.uint8)
    images.read_into(out, np.arange(len(indices)), np.asarray(indices))
    return out


def test_images_are_read_by_index(written, capsys):
    images, labels = stored.open_set(written)
    assert len(images) == 50 and images.shape == IMAGES.shape and labels.dtype == np.int32
    np.testing.assert_array_equal(labels, LABELS)
    indices = RNG.integers(50, size=70)
    np.testing.assert_array_equal(read(images, indices), IMAGES[indices])
    out = np.zeros_like(IMAGES[:5])
    images.read_into(out, np.array([3, 1]), np.array([40, 7]))
    np.testing.assert_array_equal(out[[3, 1]], IMAGES[[40, 7]])
    assert not out[[0, 2, 4]].any(), "other rows keep what they held"
    assert images.digest == array_digests({"x": IMAGES})["x"]
    assert sorted(path.name for path in written.parent.iterdir()) == ["1m.npz", "set"]
    np.testing.assert_array_equal(np.load(written / stored.IMAGES, mmap_mode="r"), IMAGES)


def test_parts_of_a_directory_follow_each_other(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("rwp_jax.data.parts.AT_ONCE", 7)
    parts = tmp_path / "parts"
    parts.mkdir()
    np.savez_compressed(parts / "a.npz", image=IMAGES[:20], label=LABELS[:20])
    np.savez(parts / "b.npz", data=IMAGES[20:23], extrapolated_targets=LABELS[20:23])
    by_columns = {"image": np.asfortranarray(IMAGES[23:]), "label": LABELS[23:].astype(np.int8)}
    np.savez(parts / "c.npz", **by_columns)
    writing.write_set(parts, tmp_path / "set")
    images, labels = stored.open_set(tmp_path / "set")
    np.testing.assert_array_equal(np.concatenate(list(images.blocks())), IMAGES)
    np.testing.assert_array_equal(labels, LABELS)
    out = capsys.readouterr().out
    without = int((LABELS < 0).sum())
    assert f"50 images of 8x9x3 from 3 parts, labels -1 to 9, {without} without a label" in out


@pytest.mark.parametrize("names", [("cat", "dog"), ("2", "10")])
def test_folders_of_pictures(tmp_path, names):
    """Classes are numbered in the order of their names; a name that is a number is the label."""
    for name, image in zip([names[1], names[0], names[1]], IMAGES[:3], strict=True):
        folder = tmp_path / "pictures" / name
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{len(list(folder.iterdir()))}.png")
    writing.write_set(tmp_path / "pictures", tmp_path / "set")
    images, labels = stored.open_set(tmp_path / "set")
    np.testing.assert_array_equal(read(images, [0, 1, 2]), IMAGES[[1, 0, 2]])
    np.testing.assert_array_equal(labels, [0, 1, 1] if names[0] == "cat" else [2, 10, 10])
    Image.fromarray(IMAGES[0, :, :, 0]).save(tmp_path / "pictures" / names[0] / "grey.png")
    with pytest.raises(InputError, match=r"grey\.png must be in colour as the first picture is"):
        writing.write_set(tmp_path / "pictures", tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("name", "file", "message"),
    [
        (
            "bird",
            "notes.txt",
            r"pictures/bird holds no pictures \(.png, .*\): each folder is a class",
        ),
        ("2147483648", "0.png", r"2147483648: its name is a label, which must be below 2\^31"),
        (
            "",
            "a.npz",
            r"holds a\.npz as well as the folder cat: must hold only files, or only folders",
        ),
    ],
)
def test_folders_that_would_shift_labels(tmp_path, name, file, message):
    pictures = tmp_path / "pictures"
    for path in (pictures / "cat" / "0.png", pictures / name / file, pictures / ".cache" / "0.txt"):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(IMAGES[0]).save(path, format="png")
    with pytest.raises(InputError, match=message):
        writing.write_set(pictures, tmp_path / "set")
    assert not (tmp_path / "set").exists()


SOURCES = {
    "a size that differs": (
        {"b": {"image": IMAGES[:, :, :8], "label": LABELS}},
        r"b\.npz: images are \(8, 8, 3\), must be \(8, 9, 3\) as in .*a\.npz",
    ),
    "floats": (
        {"a": {"image": IMAGES / 255, "label": LABELS}},
        "image is float64 .*, must be uint8",
    ),
    "labels": ({"a": {"image": IMAGES, "label": LABELS[1:]}}, r"label is int64 \(49,\), must be"),
    "names": ({"a": {"images": IMAGES}}, "missing; it must hold data, .* and holds images"),
    "nothing": ({}, "holds neither .npz, .* files nor folders of pictures"),
}


@pytest.mark.parametrize("what", SOURCES)
def test_refused_sources(what, tmp_path):
    files, message = SOURCES[what]
    parts = tmp_path / "parts"
    parts.mkdir()
    sound = {"a": {"image": IMAGES, "label": LABELS}} if files else {}
    for name, content in (sound | files).items():
        np.savez(parts / f"{name}.npz", **content)
    with pytest.raises(InputError, match=message) as error:
        writing.write_set(parts, tmp_path / "set")
    assert "\n" not in str(error.value) and [p.name for p in tmp_path.iterdir()] == ["parts"]


def test_a_damaged_npz_leaves_nothing(tmp_path):
    np.savez(tmp_path / "a.npz", image=IMAGES, label=LABELS)
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[5000] ^= 1  # a pixel, which the archive's checksum covers
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(
        InputError, match=r"a\.npz: image cannot be read from image 0 of 50 on .*CRC"
    ):
        writing.write_set(tmp_path / "a.npz", tmp_path / "set")
    (tmp_path / "a.npz").write_bytes(content[:3000])
    with pytest.raises(InputError, match=r"a\.npz: is truncated: the end of the \.npz file"):
        writing.write_set(tmp_path / "a.npz", tmp_path / "set")
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_nothing_is_overwritten(written, monkeypatch):
    before = (written / stored.RECORD).read_bytes()
    with pytest.raises(InputError, match="output=.*set already exists"):
        writing.write_set(written.parent / "1m.npz", written)
    assert (written / stored.RECORD).read_bytes() == before
    with pytest.raises(InputError, match="path=.*none.npz does not exist"):
        writing.write_set(written.parent / "none.npz", written.parent / "new")
    full = type("Usage", (), {"free": 10_000})
    monkeypatch.setattr(writing.shutil, "disk_usage", lambda path: full)
    with pytest.raises(
        TemporaryError, match=r"output=.* needs 0\.0 GB, and the disk has 0\.0 GB left"
    ):
        writing.write_set(written.parent / "1m.npz", written.parent / "new")


def cut(path: pathlib.Path, by: int):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - by])


def flip(path: pathlib.Path, at: int):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


SIZE = 8 * 9 * 3
DAMAGES = {
    "images cut short": (
        lambda d: cut(d / "images.npy", 3 * SIZE + 1),
        r"images\.npy is truncated: it ends in image 46 of 50",
    ),
    "labels cut short": (lambda d: cut(d / "labels.npy", 8), r"labels\.npy is damaged"),
    "a label": (
        lambda d: flip(d / "labels.npy", -1),
        r"labels\.npy is not the file that was written",
    ),
    "a checksum": (lambda d: flip(d / "crc32.npy", -1), r"crc32\.npy is not the file that was"),
    "no images": (lambda d: (d / "images.npy").unlink(), r"images\.npy cannot be read \(No such"),
    "no labels": (lambda d: (d / "labels.npy").unlink(), r"labels\.npy cannot be read \(No such"),
    "other images": (
        lambda d: np.save(d / "images.npy", IMAGES[:, :, :8]),
        r"images\.npy is uint8 \(50, 8, 8, 3\), must be uint8 \(50, 8, 9, 3\) as its set\.json says",
    ),
    "no array": (lambda d: (d / "images.npy").write_text("text"), r"images\.npy is no array file"),
    "the record": (lambda d: flip(d / "set.json", 20), r"set\.json is damaged"),
    "no record": (
        lambda d: (d / "set.json").unlink(),
        "is a directory without set.json: it must be",
    ),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_damage_is_named(what, written):
    damage, message = DAMAGES[what]
    damage(written)
    with pytest.raises(InputError, match=message) as error:
        stored.open_extra(str(written))
    assert str(written) in str(error.value) and "\n" not in str(error.value)


def test_damage_is_found_when_an_image_is_read(written):
    images, _ = stored.open_set(written)
    with (written / "images.npy").open("r+b") as file:
        file.seek(-SIZE * 10, 2)
        pixel = file.read(1)
        file.seek(-SIZE * 10, 2)
        file.write(bytes([pixel[0] ^ 1]))
    np.testing.assert_array_equal(read(images, [39, 41]), IMAGES[[39, 41]])
    with pytest.raises(InputError, match=r"images\.npy: image 40 of 50 is not the one that was"):
        read(images, [39, 40])
    with (written / "images.npy").open("r+b") as file:
        file.truncate(file.seek(0, 2) - SIZE * 10 - 1)
    with pytest.raises(InputError, match=r"is truncated: it ends in image 39 of 50"):
        read(images, [38, 39])


def test_a_newer_format_is_refused(written):
    record = json.loads((written / "set.json").read_text())
    del record["sha256"]
    (written / "set.json").write_text(seal(record | {"format": 2}))
    with pytest.raises(InputError, match="set.json has format 2, this version reads 1"):
        stored.open_set(written)
