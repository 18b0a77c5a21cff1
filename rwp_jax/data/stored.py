"""Image sets on disk that are read by index, image by image, and never as a whole.

A set is a directory that `writing` makes: images.npy uint8 [N, H, W, C], labels.npy int32 [N], crc32.npy
uint32 [N] with the CRC-32 of each image, and set.json, whose digest of all images identifies the set.
Labels and checksums are compared with their digests when the set is opened, every image with its checksum
when it is read.
"""

import os
import pathlib
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from rwp_jax.data.readers import check_labels, read_extra
from rwp_jax.errors import InputError, check_path, first_line
from rwp_jax.files import array_digests, unseal

IMAGES, LABELS, CHECKSUMS, RECORD = "images.npy", "labels.npy", "crc32.npy", "set.json"
FORMAT = 1
_READ_AT_ONCE = 4096  # images, where all are read


class StoredImages:
    """The images of a set, in place of an array in memory.

    Attributes:
      path: their file.
      shape: (N, H, W, C).
      dtype: uint8.
      digest: that of `files.array_digests` for an array of the same images.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, path: pathlib.Path, shape: tuple[int, ...], checksums, digest: str):
        self.path, self.shape, self.digest = path, tuple(shape), digest
        self._checksums = checksums
        self._file, self._offset = _open_array(path, self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """The size of all images."""
        return len(self) * self._bytes

    @property
    def _bytes(self) -> int:
        return int(np.prod(self.shape[1:], dtype=np.int64))

    def read_into(self, out: np.ndarray, rows: np.ndarray, indices: np.ndarray) -> None:
        """Reads images into rows of an array.

        Args:
          out: receives them, uint8 [n, H, W, C] in C order.
          rows: rows of `out` to fill, integers [m].
          indices: images to read, integers [m] in [0, N), in any order.

        Raises:
          InputError: if an image is not the one that was written, or the file has become shorter.
          OSError: if the file cannot be read.
        """
        size, pixels = self._bytes, memoryview(out.reshape(-1))
        handle = self._file.fileno()
        for row, index in zip(rows.tolist(), indices.tolist(), strict=True):
            image = pixels[row * size : (row + 1) * size]
            try:
                # Not a memory map, where a read that fails kills the process.
                got = os.preadv(handle, [image], self._offset + index * size)
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(self.path)) from None
            if got != size:
                raise InputError(_truncated(self.path, index, len(self)))
            if zlib.crc32(image) != self._checksums[index]:
                raise InputError(
                    f"{self.path}: image {index:,} of {len(self):,} is not the one that was written: "
                    "write the set anew"
                )

    def blocks(self) -> Iterator[np.ndarray]:
        """Yields all images in order, some at a time; raises InputError as `read_into`."""
        for begin in range(0, len(self), _READ_AT_ONCE):
            indices = np.arange(begin, min(begin + _READ_AT_ONCE, len(self)))
            images = np.empty((len(indices), *self.shape[1:]), np.uint8)
            self.read_into(images, np.arange(len(indices)), indices)
            yield images


def is_set(path: pathlib.Path) -> bool:
    """Returns whether a directory is a set of images, sound or not."""
    return (path / RECORD).is_file()


def open_extra(path: str) -> tuple[np.ndarray | StoredImages, np.ndarray]:
    """Opens the extra data of a config: a set of images, or a file as `readers.read_extra` reads it.

    Returns:
      Images uint8 [N, H, W, C], in memory or on disk, and labels int32 [N], -1 for "no label".

    Raises:
      InputError: if the set or the file cannot be read or has other contents.
    """
    directory = check_path("config.extra_data.path", path)
    if not directory.is_dir():
        return read_extra(path)
    if not is_set(directory):
        raise InputError(
            f"config.extra_data.path={path!r} is a directory without {RECORD}: it must be a file, or a "
            "directory that the mode write_data has written"
        )
    return open_set(directory)


def open_set(path: pathlib.Path) -> tuple[StoredImages, np.ndarray]:
    """Opens a set of images.

    Args:
      path: its directory.

    Returns:
      The images, which stay on disk, and the labels int32 [N], -1 for "no label".

    Raises:
      InputError: if a file is missing or damaged; images are compared when they are read.
    """
    record = _record(path)
    shape = (record["images"], *record["image_shape"])
    arrays = {}
    for name in (LABELS, CHECKSUMS):
        arrays[name] = _whole_array(path / name)
        if array_digests({"": arrays[name]})[""] != record["digests"][name]:
            raise InputError(f"{path / name} is not the file that was written: write the set anew")
    check_labels(str(path / LABELS), arrays[LABELS], len(arrays[CHECKSUMS]), lowest=-1)
    images = StoredImages(path / IMAGES, shape, arrays[CHECKSUMS], record["digests"][IMAGES])
    return images, arrays[LABELS]


def _record(path: pathlib.Path) -> dict[str, Any]:
    file = path / RECORD
    try:
        record = unseal(file.read_text())
    except (ValueError, OSError) as error:
        raise InputError(f"{file} is damaged ({first_line(error)}): write the set anew") from None
    if record.get("format") != FORMAT:
        raise InputError(f"{file} has format {record.get('format')!r}, this version reads {FORMAT}")
    return record


def _open_array(path: pathlib.Path, shape: tuple[int, ...]) -> tuple[Any, int]:
    """Opens images.npy; returns the file and where its first image begins."""
    try:
        file = path.open("rb", buffering=0)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from None
    try:
        np.lib.format.read_magic(file)
        held, by_columns, dtype = np.lib.format.read_array_header_1_0(file)
    except Exception as error:  # NumPy raises many types for damaged files
        raise InputError(f"{path} is no array file of NumPy ({first_line(error)})") from None
    if (held, by_columns, dtype) != (shape, False, np.uint8):
        raise InputError(f"{path} is {dtype} {held}, must be uint8 {shape} as its {RECORD} says")
    offset, end = file.tell(), file.seek(0, os.SEEK_END)
    whole = (end - offset) // int(np.prod(shape[1:], dtype=np.int64))
    if whole < shape[0]:
        raise InputError(_truncated(path, whole, shape[0]))
    if hasattr(os, "posix_fadvise"):  # the order is random: what lies behind an image is not next
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
    return file, offset


def _truncated(path: pathlib.Path, index: int, count: int) -> str:
    return f"{path} is truncated: it ends in image {index:,} of {count:,}: write the set anew"


def _whole_array(path: pathlib.Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or first_line(error)})") from None
    except Exception as error:  # NumPy raises many types for damaged files
        raise InputError(f"{path} is damaged ({first_line(error)}): write the set anew") from None
