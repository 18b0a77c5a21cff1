"""The display of an attack's progress."""

import sys

import pytest

from rwp_jax.evaluation import progress


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_file_gets_a_line_a_minute_and_one_at_the_end(clock, capsys):
    with progress.shown("PGD-20") as show:
        for seconds, done in ((10, 0.1), (70, 0.4), (100, 0.6), (131, 0.8), (140, 1.0)):
            clock[0] = seconds
            show(done, f"{done:.2f} correct")
    assert capsys.readouterr().err.splitlines() == [
        "PGD-20: 40% done in 70 s, 0.40 correct",
        "PGD-20: 80% done in 131 s, 0.80 correct",
        "PGD-20: 100% done in 140 s, 1.00 correct",
    ]


def test_a_terminal_gets_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress.shown("PGD-20") as show:
        show(0.5, "12.00% correct so far")
    shown = capsys.readouterr().err
    assert " 50%, 12.00% correct so far" in shown and "done in" not in shown
