"""The version and commit of the code that produced a result."""

import contextlib
import pathlib
import shutil
import subprocess
import sys
import types

import pytest

from rwp_jax import version
from rwp_jax.command_line import program
from rwp_jax.configs import digits_at_rwp
from rwp_jax.evaluation import benchmark
from rwp_jax.training import trainer


def commit_in(root: pathlib.Path) -> str:
    """Returns the commit that a package in `root` reports."""
    (root / "rwp_jax").mkdir()
    shutil.copy(version.__file__, root / "rwp_jax/version.py")
    code = "import runpy; print(runpy.run_path('rwp_jax/version.py')['commit']())"
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout[:-1]


def test_outside_of_a_clone_there_is_none(tmp_path):
    assert commit_in(tmp_path) == ""


@pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")
def test_a_clone_has_its_commit_and_says_that_files_differ(tmp_path):
    git = lambda *command: subprocess.run(
        ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *command],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    git("init")
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-m", "first")
    head = git("rev-parse", "HEAD")
    assert commit_in(tmp_path) == head[:12]
    (tmp_path / "file").write_text("2")
    shutil.rmtree(tmp_path / "rwp_jax")
    assert commit_in(tmp_path) == head[:12] + "+"


def test_versions():
    found = version.versions(["numpy"])
    assert found["rwp-jax"] == version.__version__ and {"python", "numpy"} <= found.keys()
    assert version.described().startswith(version.__version__)


@pytest.mark.parametrize("begin", ["program", "train", "benchmark"])
def test_it_is_read_before_the_work(begin, monkeypatch, tmp_path):
    """A clone that changes during a run does not change what the run records."""
    asked = []
    mode = types.SimpleNamespace(run=lambda: asked.append("work"))
    monkeypatch.setattr(program, "commit", lambda: asked.append("commit"))
    monkeypatch.setattr(trainer, "commit", lambda: asked.append("commit"))
    monkeypatch.setattr(benchmark, "commit", lambda: asked.append("commit"))
    monkeypatch.setattr(program, "check_flags", lambda *_: None)
    monkeypatch.setattr(program, "MODES", {"mode": mode})
    monkeypatch.setattr(program.flags, "MODE", types.SimpleNamespace(value="mode"))
    stop = lambda *_: pytest.fail("works first") if not asked else sys.exit()
    monkeypatch.setattr(trainer.processes, "check_equal", stop)
    monkeypatch.setattr(benchmark, "check_file", stop)
    with contextlib.suppress(SystemExit):
        {
            "program": lambda: program._run([]),
            "train": lambda: trainer.train(digits_at_rwp.get_config(), tmp_path / "run"),
            "benchmark": lambda: benchmark.benchmark(None, None, "l_inf", 0.1),
        }[begin]()
    assert asked == (["commit", "work"] if begin == "program" else ["commit"])
