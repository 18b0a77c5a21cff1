"""Batches that are read ahead: their order, errors and memory."""

import itertools
import pathlib
import threading
import time

import numpy as np
import pytest

from rwp_jax.data import stream
from rwp_jax.data.order import epoch_indices, make_mixture
from rwp_jax.errors import InputError

MIXTURE = make_mixture(64, 16, num_extra=1000, unlabeled_fraction=0.75)


def read(indices):
    time.sleep(0.002 * (indices[0] % 3))  # so that threads finish in another order
    return np.repeat(indices[:, None], 3, 1)


def test_the_order_is_that_of_the_indices_on_any_number_of_hosts():
    whole = list(epoch_indices(MIXTURE, 5, 2))
    parts = []
    for host in range(2):
        order, read_by = epoch_indices(MIXTURE, 5, 2, host, 2), []
        both = lambda indices, read_by=read_by: (read_by.append(indices), read(indices))[1]
        ahead = stream.read_ahead(order, MIXTURE.steps, both, lambda x: x + 1, 24)
        parts.append(list(ahead))
        assert {len(indices) for indices in read_by} == {8}, "a host reads its part alone"
        assert len(read_by) == MIXTURE.steps
    for batch, *halves in zip(whole, *parts, strict=True):
        np.testing.assert_array_equal(np.concatenate([h.indices for h in halves]), batch)
        images = np.concatenate([h.images for h in halves])
        np.testing.assert_array_equal(images, np.repeat(batch[:, None], 3, 1) + 1)


def test_a_start_within_an_epoch_reads_nothing_twice():
    order = itertools.islice(epoch_indices(MIXTURE, 5, 2), 9, None)
    seen = []
    count = MIXTURE.steps - 9
    reading = lambda indices: (seen.append(indices.tolist()), read(indices))[1]
    batches = list(stream.read_ahead(order, count, reading, lambda x: x, 48))
    whole = [indices.tolist() for indices in epoch_indices(MIXTURE, 5, 2)]
    assert [batch.indices.tolist() for batch in batches] == whole[9:]
    assert sorted(seen) == sorted(whole[9:])
    assert not list(stream.read_ahead(iter(()), 0, reading, lambda x: x, 48))


@pytest.mark.parametrize(("batch_bytes", "threads"), [(48, stream.THREADS), (2**28, 1)])
def test_few_batches_are_in_memory(batch_bytes, threads):
    started = []
    reading = lambda indices: (started.append(threading.current_thread()), read(indices))[1]
    order = epoch_indices(MIXTURE._replace(steps=200), 0, 0)
    ahead = stream.read_ahead(order, 200, reading, lambda x: x, batch_bytes)
    next(ahead)
    time.sleep(0.5)
    # Being placed: one, which waits for room; in the queues: PLACED and a batch per thread.
    assert len(started) <= 2 + stream.PLACED + threads
    ahead.close()
    for thread in set(started):
        thread.join(10)
        assert not thread.is_alive()


def test_an_error_of_a_thread_is_raised():
    def fails(indices):
        raise InputError("images.npy is truncated")

    with pytest.raises(InputError, match="images.npy is truncated"):
        list(stream.read_ahead(epoch_indices(MIXTURE, 0, 0), 5, fails, lambda x: x, 48))


def bytes_read() -> int:
    """Returns how many bytes this process has read, from disk or the page cache."""
    return int(pathlib.Path("/proc/self/io").read_text().split()[1])


def test_a_file_is_read_into_the_page_cache_if_there_is_room(tmp_path, monkeypatch):
    path = tmp_path / "images.npy"
    path.write_bytes(bytes(20_000_000))
    assert stream._available() > 1000
    monkeypatch.setattr(stream, "_available", lambda: 20_000_000 - 1)
    assert stream.warm(path) is None
    monkeypatch.setattr(stream, "_available", lambda: 20_000_000)
    read_before = bytes_read()
    thread = stream.warm(path)
    assert thread is not None and thread.daemon
    thread.join(10)
    assert not thread.is_alive()
    assert bytes_read() - read_before >= 20_000_000
