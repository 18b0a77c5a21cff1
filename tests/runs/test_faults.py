"""A short version of benchmarks/faults.py."""

import sys

import pytest

from benchmarks import faults


@pytest.mark.slow
def test_kills_and_damages_leave_no_trace(tmp_path, monkeypatch, capsys):
    arguments = ["--kills", "2", "--damages", "30", "--workdir", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["faults", *arguments])
    monkeypatch.setattr(faults, "LONGEST", 8.0)
    assert faults.main() == 0
    said = capsys.readouterr().out
    assert "2 of 2 kills left no trace" in said and " 0 SILENTLY WRONG" in said
    assert "30 damages: 0 newest restored" not in said


def test_what_differs_is_seen():
    arrays = faults.np.arange(3)
    assert faults.same(([arrays], "a"), ([arrays.copy()], "a"))
    assert not faults.same(([arrays], "a"), ([arrays + 1], "a"))
    assert not faults.same(([arrays], "a"), ([arrays], "b"))
