"""Starts without progress are counted and end after some, orderly ends are not."""

import errno
import json

import pytest

from rwp_jax.distributed.preemption import Interrupted
from rwp_jax.errors import InputError
from rwp_jax.runs import restarts


def start(directory, step, most=2, end=KeyboardInterrupt):
    """Starts the run and ends it by an exception, or in good order."""
    with restarts.counted(directory, step, most):
        if end:
            raise end


def fail(directory, step, times):
    for _ in range(times):
        with pytest.raises(KeyboardInterrupt):
            start(directory, step)


def test_starts_without_progress_end(tmp_path):
    fail(tmp_path, 8, 3)  # a start and two restarts
    with pytest.raises(InputError, match="3 starts in a row .* after step 8 .max_restarts=2."):
        start(tmp_path, 8)
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path, 8, most=0)
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path, 8, most=9)


def test_progress_begins_anew(tmp_path):
    fail(tmp_path, 0, 3)
    fail(tmp_path, 8, 3)
    assert json.loads((tmp_path / restarts.FILE).read_text()) == {"step": 8, "restarts": 2}


@pytest.mark.parametrize("end", [None, Interrupted("SIGTERM"), InputError("wrong")])
def test_orderly_ends_do_not_count(tmp_path, end):
    for _ in range(5):
        if end:
            with pytest.raises(type(end)):
                start(tmp_path, 8, end=end)
        else:
            start(tmp_path, 8, end=None)
    assert not (tmp_path / restarts.FILE).exists()


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "\0" * 64])
def test_a_damaged_count_begins_anew(tmp_path, content):
    (tmp_path / restarts.FILE).write_text(content)
    fail(tmp_path, 8, 3)
    assert json.loads((tmp_path / restarts.FILE).read_text())["restarts"] == 2


def test_the_file_does_not_grow(tmp_path):
    fail(tmp_path, 8, 1)
    size = (tmp_path / restarts.FILE).stat().st_size
    fail(tmp_path, 10**9, 2)
    assert (tmp_path / restarts.FILE).stat().st_size == size


def test_a_full_disk_is_said_to_pass(tmp_path, monkeypatch):
    from rwp_jax.errors import TemporaryError
    from rwp_jax.runs import checkpoint

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "_check_room", full)
    checkpoints = checkpoint.Checkpoints(tmp_path)
    checkpoints.save({}, {"step": 1, "epoch": 0})
    with pytest.raises(TemporaryError, match="No space left on device"):
        checkpoints.close()
