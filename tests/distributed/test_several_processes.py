"""Runs on several local processes; they take minutes, since each process compiles."""

import json
import signal
import sys
import time

import pytest

from benchmarks import elastic
from rwp_jax.distributed.preemption import EXIT_CODE

pytestmark = pytest.mark.slow


def test_a_run_moves_from_eight_devices_to_two_processes(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["elastic", "--objectives", "at", "--layouts", "1x8 then 2x4"])
    assert elastic.main() == 0
    assert "1x8 then 2x4" in capsys.readouterr().out


def test_processes_that_disagree_end_before_anything_is_written(tmp_path):
    directory = tmp_path / "run"
    commands = elastic.commands(elastic.CONFIGS["at"], "2x1", directory)
    commands[1].append("--config.seed=1")
    processes = elastic.start(commands, "2x1", directory)
    assert [process.wait() for process in processes] == [2, 2]
    for i in range(2):
        said = elastic.log_of(directory, i).read_text()
        assert "disagree about the config: seed=0 in process 0, 1 in process 1" in said
    assert not directory.exists()


def test_one_that_dies_takes_the_others_along(tmp_path):
    directory = tmp_path / "run"
    commands = elastic.commands(elastic.CONFIGS["at"], "2x1", directory)
    long = [[*command, "--config.epochs=1000"] for command in commands]
    processes = elastic.start(long, "2x1", directory)
    elastic.wait_for_an_epoch(directory, processes[0])
    processes[1].send_signal(signal.SIGKILL)
    killed = time.monotonic()
    # Our message, or JAX's if its coordination service notices first.
    code = processes[0].wait()
    said = elastic.log_of(directory, 0).read_text()
    ended = {EXIT_CODE: "another process ended", -signal.SIGABRT: "another task died"}
    assert ended[code] in said
    assert time.monotonic() - killed < 60
    records = [json.loads(line) for line in (directory / "metrics.jsonl").open()]
    assert [r["epoch"] for r in records if r["split"] == "test"] == list(range(len(records) // 2))
