"""Runs on several local processes; they take minutes, since each process compiles."""

import json
import signal
import socket
import subprocess
import sys
import time

import pytest

from benchmarks import elastic
from rwp_jax.distributed.preemption import EXIT_CODE
from rwp_jax.runs.metrics import read_metrics

pytestmark = pytest.mark.slow


def test_a_run_moves_from_eight_devices_to_two_processes(monkeypatch, capsys):
    """Within an epoch; each process reads its part of the extra images, in the order of one process."""
    arguments = ["--objectives", "streamed", "--layouts", "1x8 then 2x4"]
    monkeypatch.setattr(sys, "argv", ["elastic", *arguments])
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


def test_processes_extend_a_run_that_began_with_given_weights(tmp_path):
    """The first process reads the weights, and the history, for all of them."""
    small = ("--config.epoch_examples=16", "--config.checkpoint_steps=0")
    began, tuned = tmp_path / "began", tmp_path / "tuned"
    (command,) = elastic.commands(elastic.CONFIGS["at"], "1x2", began)
    (process,) = elastic.start([[*command, *small, "--config.epochs=1"]], "1x2", began)
    assert process.wait() == 0
    for arguments, said in [
        (
            ("--config.epochs=1", f"--init_from={began}"),
            f"beginning with the weights of {began} last",
        ),
        (("--config.epochs=2", "--extend"), "from epoch 2 on config.epochs=2 (was 1)"),
    ]:
        commands = elastic.commands(elastic.CONFIGS["at"], "2x1", tuned)
        commands = [[*command, *small, *arguments] for command in commands]
        commands[1] = [a.replace(str(began), "elsewhere") for a in commands[1]]
        processes = elastic.start(commands, "2x1", tuned)
        assert [process.wait() for process in processes] == [0, 0]
        assert said in elastic.log_of(tuned, 0).read_text()
        assert said not in elastic.log_of(tuned, 1).read_text()
    assert len(read_metrics(tuned)) == 4


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
    ended = {EXIT_CODE: "process 1 ended", -signal.SIGABRT: "another task died"}
    assert ended[code] in said
    assert time.monotonic() - killed < 60
    records = [json.loads(line) for line in (directory / "metrics.jsonl").open()]
    assert [r["epoch"] for r in records if r["split"] == "test"] == list(range(len(records) // 2))


# A process of two: connects, then ends as its scenario says while the other waits in a collective.
ENDING = """
import sys
from rwp_jax.command_line import program
from rwp_jax.distributed import failures, processes, rendezvous
from rwp_jax.errors import InputError, TemporaryError
import jax

process, failing, address, does = int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]
rendezvous.connect(address, 2, process)
failures.watch()
processes.gather(process)
program._run = lambda _: (exec(does) if process == failing else processes.gather("waiting"))
program.parse_flags = lambda argv, modes: program.absl_flags.FLAGS(argv)
sys.argv = ["rwp-jax"]
program.main()
"""
JAX_ERROR = "raise jax.errors.JaxRuntimeError('{}')"


@pytest.mark.parametrize(
    ("failing", "does", "code", "said"),
    [
        (1, "raise PermissionError(13, 'denied', 'metrics.jsonl')", 2, "denied: 'metrics.jsonl'"),
        (0, "raise TemporaryError('the disk is full')", EXIT_CODE, "the disk is full"),
        (1, "raise InputError('labels differ')", 2, "labels differ"),
        (0, "raise TypeError('a mistake')", 1, "a mistake"),
        (1, JAX_ERROR.format("INTERNAL: NCCL: invalid connection"), 1, "NCCL: invalid connection"),
        (1, JAX_ERROR.format("UNAVAILABLE: connection reset"), EXIT_CODE, "connection reset"),
    ],
)
def test_a_failure_ends_both_with_one_code(tmp_path, failing, does, code, said):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-c", ENDING]
    both = [
        subprocess.Popen(
            [*command, str(i), str(failing), address, does],
            cwd=elastic.ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    ended = [process.communicate(timeout=120)[1] for process in both]
    codes = [process.returncode for process in both]
    assert codes == [code] * 2, (codes, ended)
    assert said in ended[failing] and f"process {failing} failed: " in ended[1 - failing]
    assert said in ended[1 - failing], ended
