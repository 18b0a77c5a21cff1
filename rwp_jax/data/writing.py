"""Writes the image sets that `stored` reads, some images at a time."""

import hashlib
import os
import pathlib
import shutil
import sys
import zlib

import numpy as np
from tqdm import tqdm

from rwp_jax.data.parts import Part, parts_of
from rwp_jax.data.stored import CHECKSUMS, FORMAT, IMAGES, LABELS, RECORD
from rwp_jax.errors import InputError, TemporaryError
from rwp_jax.files import array_digests, check_free, partial_of, raw_bytes, seal


def write_set(path: pathlib.Path, output: pathlib.Path) -> None:
    """Writes a set of images for config.extra_data.path.

    Args:
      path: source of the images, see `parts.parts_of`.
      output: directory to write; it gets its name when it is complete.

    Raises:
      InputError: if the source cannot be read, `output` exists or the disk is too small.
    """
    check_free("output", output)
    write_parts(parts_of(path), output)


def write_parts(parts: list[Part], output: pathlib.Path) -> None:
    """Writes the images of parts, all of one size, as `write_set` does."""
    check_free("output", output)
    shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
    needed, free = int(np.prod(shape, dtype=np.int64)), shutil.disk_usage(output.absolute().parent)
    if needed + 8 * shape[0] > free.free:
        raise TemporaryError(
            f"output={output} needs {needed / 1e9:.1f} GB, and the disk has {free.free / 1e9:.1f} GB left"
        )
    partial = partial_of(output)
    partial.mkdir()
    try:
        _write(partial, parts, shape)
        if output.exists():  # by another process in the meantime
            raise InputError(f"output={output} already exists")
        partial.rename(output)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    labels = np.concatenate([part.labels for part in parts])
    size = "x".join(map(str, shape[1:]))
    unlabelled = int((labels < 0).sum())
    without = f", {unlabelled:,} without a label" if unlabelled else ""
    print(
        f"wrote {output}: {len(labels):,} images of {size} from {len(parts)} "
        f"{'part' if len(parts) == 1 else 'parts'}, labels {labels.min()} to {labels.max()}{without}"
    )


def _write(directory: pathlib.Path, parts: list[Part], shape: tuple[int, ...]) -> None:
    """Writes the files of a set."""
    labels = np.concatenate([part.labels for part in parts])
    checksums = np.empty(shape[0], np.uint32)
    # As `files.array_digests` of the whole array, so that a set and an npz of its images are the same data.
    digest = hashlib.blake2b(f"{np.dtype(np.uint8)} {shape}".encode(), digest_size=16)
    bar = tqdm(total=shape[0], desc="writing", unit="image", disable=not sys.stderr.isatty())
    with (directory / IMAGES).open("wb") as file, bar:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        done = 0
        for part in parts:
            for block in part.blocks():
                file.write(raw_bytes(block))
                digest.update(raw_bytes(block))
                for pixels in np.ascontiguousarray(block).reshape(len(block), -1):
                    checksums[done] = zlib.crc32(pixels)
                    done += 1
                bar.update(len(block))
        file.flush()
        os.fsync(file.fileno())
    np.save(directory / LABELS, labels)
    np.save(directory / CHECKSUMS, checksums)
    small = array_digests({LABELS: labels, CHECKSUMS: checksums})
    record = {
        "format": FORMAT,
        "images": shape[0],
        "image_shape": list(shape[1:]),
        "digests": {IMAGES: digest.hexdigest(), **small},
    }
    (directory / RECORD).write_text(seal(record))
