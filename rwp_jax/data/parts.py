"""The sources of an image set: npz files and pickles with images and labels, and folders of pictures."""

import pathlib
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from rwp_jax.data import readers
from rwp_jax.errors import InputError, first_line

AT_ONCE = 2048  # images in memory
_FILES = (".npz", ".pickle", ".pkl")
_PICTURES = (".png", ".jpg", ".jpeg", ".bmp")


class Part(NamedTuple):
    """Images of one source, which are read some at a time.

    Attributes:
      name: what to call it in messages.
      shape: (N, H, W, C).
      labels: int32 [N], -1 for "no label".
      blocks: yields the images, uint8 [n, H, W, C], in order.
    """

    name: str
    shape: tuple[int, ...]
    labels: np.ndarray
    blocks: Callable[[], Iterator[np.ndarray]]


def parts_of(path: pathlib.Path) -> list[Part]:
    """Returns the parts of a source, whose images have not been read yet.

    Args:
      path: an npz or a pickle as `readers.read_extra` accepts; a directory of them, in the order of their
        names; or a directory of folders of pictures, one a class.

    Raises:
      InputError: if there is nothing to read, or images or labels are not as they must be; if a directory
        holds files as well as folders, or a folder without pictures, whose class might be missed.
    """
    if not path.exists():
        raise InputError(f"path={path} does not exist")
    files = [path] if path.is_file() else _sorted(path, _FILES)
    folders = [] if path.is_file() else [folder for folder in path.iterdir() if folder.is_dir()]
    folders = sorted(folder for folder in folders if not folder.name.startswith((".", "__")))
    if files and folders:
        raise InputError(
            f"path={path} holds {files[0].name} as well as the folder {folders[0].name}: must hold only "
            "files, or only folders of pictures"
        )
    if files:
        parts = [_of_npz(file) if zipfile.is_zipfile(file) else _of_pickle(file) for file in files]
    else:
        parts = _of_folders(path, folders)
    first = parts[0]
    for part in parts[1:]:
        if part.shape[1:] != first.shape[1:]:
            raise InputError(
                f"{part.name}: images are {part.shape[1:]}, must be {first.shape[1:]} as in {first.name}"
            )
    return parts


def _sorted(path: pathlib.Path, endings: tuple[str, ...]) -> list[pathlib.Path]:
    return sorted(file for file in path.iterdir() if file.suffix.lower() in endings)


def _of_pickle(file: pathlib.Path) -> Part:
    images, labels = readers.read_extra(str(file))
    blocks = lambda: (images[i : i + AT_ONCE] for i in range(0, len(images), AT_ONCE))
    return Part(str(file), images.shape, labels, blocks)


def _of_npz(file: pathlib.Path) -> Part:
    """Returns the part of an npz; the images, which may not fit into memory, stay in the file."""
    with readers.opened_npz(file) as arrays:
        images, labels = readers.extra_names(file, arrays.files)
        y = arrays[labels]
        with arrays.zip.open(f"{images}.npy") as stream:
            shape, by_columns, dtype = _header(stream)
    if by_columns:  # such an array cannot be read image by image
        return _of_pickle(file)
    # An array of this shape without memory of its own.
    readers.check_images(f"{file}: {images}", np.broadcast_to(np.zeros((), dtype), shape))
    readers.check_labels(f"{file}: {labels}", y, shape[0], lowest=-1)
    return Part(str(file), shape, y.astype(np.int32), lambda: _npz_blocks(file, images, shape))


def _header(stream) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(stream)
    known = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    return known[version](stream)


def _npz_blocks(file: pathlib.Path, name: str, shape) -> Iterator[np.ndarray]:
    size, done = int(np.prod(shape[1:], dtype=np.int64)), 0
    try:
        with zipfile.ZipFile(file) as archive, archive.open(f"{name}.npy") as stream:
            _header(stream)
            while done < shape[0]:
                count = min(AT_ONCE, shape[0] - done)
                data = stream.read(count * size)
                done += len(data) // size
                if len(data) != count * size:
                    raise EOFError("the file is truncated")
                yield np.frombuffer(data, np.uint8).reshape(count, *shape[1:])
    except (EOFError, OSError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(
            f"{file}: {name} cannot be read from image {done:,} of {shape[0]:,} on ({first_line(error)})"
        ) from None


def _of_folders(path: pathlib.Path, folders: list[pathlib.Path]) -> list[Part]:
    """Returns a part for each folder of pictures; a folder named by a number has it as label."""
    found = {folder.name: _sorted(folder, _PICTURES) for folder in folders}
    if not any(found.values()):
        raise InputError(
            f"path={path} holds neither {', '.join(_FILES)} files nor folders of pictures "
            f"({', '.join(_PICTURES)}), one a class"
        )
    for name, files in found.items():
        if not files:
            raise InputError(
                f"{path / name} holds no pictures ({', '.join(_PICTURES)}): each folder is a class"
            )
        if name.isdecimal() and int(name) >= 2**31:
            raise InputError(f"{path / name}: its name is a label, which must be below 2^31")
    numbered = all(name.isdecimal() for name in found)
    names = sorted(found, key=int if numbered else str)
    labels = [int(name) if numbered else i for i, name in enumerate(names)]
    size = _picture(found[names[0]][0]).shape
    parts = []
    for name, label in zip(names, labels, strict=True):
        files = found[name]
        shape = (len(files), *size)
        blocks = lambda files=files: _picture_blocks(files, size)
        readers.check_images(str(path / name), np.broadcast_to(np.uint8(0), shape))
        parts.append(Part(str(path / name), shape, np.full(len(files), label, np.int32), blocks))
    return parts


def _picture(file: pathlib.Path, grey: bool | None = None) -> np.ndarray:
    """Returns a picture, uint8 [H, W, 1] if it is grey, or else [H, W, 3]; `grey` says what it must be."""
    try:
        from PIL import Image
    except ImportError:
        raise InputError(f"{file}: pictures need pillow: pip install pillow") from None
    try:
        with Image.open(file) as picture:
            is_grey = picture.mode == "L"
            pixels = np.asarray(picture if is_grey else picture.convert("RGB"))
    except Exception as error:  # pillow raises many types
        raise InputError(f"{file} cannot be read as a picture ({first_line(error)})") from None
    if grey is not None and grey != is_grey:
        raise InputError(
            f"{file} must be {'grey' if grey else 'in colour'} as the first picture is"
        )
    return pixels[..., None] if is_grey else pixels


def _picture_blocks(files: list[pathlib.Path], size: tuple[int, ...]) -> Iterator[np.ndarray]:
    for begin in range(0, len(files), AT_ONCE):
        block = np.empty((len(files[begin : begin + AT_ONCE]), *size), np.uint8)
        for row, file in enumerate(files[begin : begin + AT_ONCE]):
            pixels = _picture(file, grey=size[2] == 1)
            if pixels.shape != size:
                raise InputError(
                    f"{file} is {pixels.shape}, must be {size} as the first picture is"
                )
            block[row] = pixels
        yield block
