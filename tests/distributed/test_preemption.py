"""Signals to a subprocess: the first asks it to stop, the second ends it at once."""

import signal
import subprocess
import sys

import pytest

from rwp_jax.distributed.preemption import EXIT_CODE, StopRequest

CODE = """
import time
from rwp_jax.distributed.preemption import StopRequest
with StopRequest() as stop:
    print("ready", flush=True)
    while not stop.signal:
        time.sleep(0.01)
    print(stop.signal, flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_the_process(number):
    process = subprocess.Popen(
        [sys.executable, "-c", CODE], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.stdout.readline() == f"{number.name}\n"
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGTERM
    assert f"{number.name}: finishing the step or evaluation, then saving" in errors


def test_sigterm_outside_training_is_one_line_and_the_documented_code():
    code = """
import time
from rwp_jax.distributed.preemption import end_on_sigterm
end_on_sigterm("ended")
print("ready", flush=True)
time.sleep(60)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (EXIT_CODE, "ended\n")


def test_handlers_are_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        assert signal.getsignal(signal.SIGTERM) != before and stop.signal is None
    assert signal.getsignal(signal.SIGTERM) == before
