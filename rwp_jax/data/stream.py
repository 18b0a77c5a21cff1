"""Reads the batches of an epoch ahead of the steps that train on them, through grain."""

import contextlib
import importlib.util
import pathlib
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple

import numpy as np

from rwp_jax.errors import InputError

THREADS = 8  # batches that are read at once: a disk needs several requests to be busy
PLACED = 2  # batches that wait on the devices
_READ_BYTES = 2**28  # most memory of batches that are read ahead
_WARM_BYTES = 2**23


class Batch(NamedTuple):
    """This host's part of a batch.

    Attributes:
      indices: int32 [n], as `order.epoch_indices` yields them.
      images: uint8 [n, H, W, C], or what `place` made of them.
    """

    indices: np.ndarray
    images: Any


def check_available() -> None:
    """Raises InputError if grain is not installed."""
    if importlib.util.find_spec("grain") is None:
        raise InputError(
            "config.extra_data.path= is a directory, and streaming its images needs grain: "
            "pip install 'rwp-jax[stream]' (or pip install grain)"
        )


def _available() -> int:
    """Returns how many bytes of memory are free or hold files; 0 if the system does not tell."""
    try:
        lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvail"))
    except (OSError, StopIteration):
        return 0


def warm(path: pathlib.Path) -> threading.Thread | None:
    """Reads a file into the page cache in the background, if memory has room for it.

    Disks read a file in order many times faster than images at random.

    Returns:
      The thread that reads, None if there is no room.
    """
    if path.stat().st_size > _available():
        return None
    thread = threading.Thread(target=_read_through, args=(path,), daemon=True, name="warm")
    thread.start()
    return thread


def _read_through(path: pathlib.Path) -> None:
    buffer = bytearray(_WARM_BYTES)
    with contextlib.suppress(OSError), path.open("rb", buffering=0) as file:  # steps report errors
        while file.readinto(buffer):
            pass


class _Batches:
    """Batches by position, as grain asks for them: each once, almost in order, in several threads."""

    def __init__(self, order: Iterator[np.ndarray], count: int, read: Callable):
        self._order, self._count, self._read = enumerate(order), count, read
        self._known: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, position: int) -> Batch:
        with self._lock:
            while position not in self._known:
                known, indices = next(self._order)
                self._known[known] = indices
            indices = self._known.pop(position)
        return Batch(indices, self._read(indices))


def read_ahead(
    order: Iterator[np.ndarray],
    count: int,
    read: Callable[[np.ndarray], np.ndarray],
    place: Callable[[np.ndarray], Any],
    batch_bytes: int,
) -> Generator[Batch, None, None]:
    """Yields batches in the given order; later ones are read and placed while a step computes.

    Close the iterator to end its threads before its end.

    Args:
      order: indices of each batch of this host.
      count: number of batches.
      read: indices [n] -> images uint8 [n, H, W, C]; called in several threads.
      place: images -> images on the devices, called in one thread.
      batch_bytes: size of the images of a batch, which limits how many are read at once.

    Raises:
      InputError: if `read` raises it.
    """
    import grain
    from grain.experimental import ThreadPrefetchIterDataset

    if not count:
        return
    threads = min(max(_READ_BYTES // batch_bytes, 1), THREADS)
    batches = grain.MapDataset.source(_Batches(order, count, read))
    reading = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
    placed = batches.to_iter_dataset(reading).map(
        lambda batch: Batch(batch.indices, place(batch.images))
    )
    iterator = iter(ThreadPrefetchIterDataset(placed, prefetch_buffer_size=PLACED))
    with contextlib.closing(iterator):
        yield from iterator
