"""Paths in every flag, key and argument: `~` and `$VAR` are understood, URLs are refused."""

import argparse
import os
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

import rwp_jax
from rwp_jax.command_line import modes
from rwp_jax.command_line.config_file import find_config
from rwp_jax.command_line.parsing import parse_flags
from rwp_jax.configs import digits_at_rwp
from rwp_jax.data import readers, sources
from rwp_jax.errors import InputError, Parser, check_path
from rwp_jax.evaluation.subject import path_name
from rwp_jax.training import self_training
from tests.fresh_flags import forget_flags
from tests.small import write_two_classes

pytestmark = pytest.mark.usefixtures("one_device")

URLS = ["gs://bucket/run", "s3://bucket/run", pathlib.Path("gs://bucket/run"), "file:///tmp/run"]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home directory, also as $PLACE, and an empty current directory."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PLACE", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    yield tmp_path / "home"
    assert not os.listdir(tmp_path / "here"), "nothing is named after a tilde or a scheme"


def test_what_stands_for_a_directory(home):
    for written in ("~/a", "$PLACE/a", "${PLACE}/a", pathlib.Path("~/a"), str(home / "a")):
        assert check_path("workdir", written) == home / "a"
    literal = home / "$PLACE"
    literal.touch()
    assert check_path("workdir", str(literal)) == literal, "a file of that name"


@pytest.mark.parametrize("url", URLS)
def test_urls(url, home):
    with pytest.raises(
        InputError, match="workdir=.* is a URL, must be a local path: mount .*gcsfuse"
    ):
        check_path("workdir", url)


def test_users_and_variables_that_do_not_exist(home):
    with pytest.raises(
        InputError, match="workdir=~nobody_at_all/x: there is no user 'nobody_at_all'"
    ):
        check_path("workdir", "~nobody_at_all/x")
    with pytest.raises(InputError, match=r"variable \$NOT_SET_AT_ALL is not set"):
        check_path("workdir", "$NOT_SET_AT_ALL/x")


@pytest.mark.parametrize("key", ["data.path", "extra_data.path"])
@pytest.mark.parametrize("url", URLS[:2])
def test_keys_and_workdirs_of_training(key, url, home):
    config = digits_at_rwp.get_config()
    with pytest.raises(InputError, match="^workdir=.* is a URL"):
        self_training.train(config, url)
    config.data.name = "npz" if key == "data.path" else "digits"
    config.update_from_flattened_dict({key: url})
    with pytest.raises(InputError, match=f"^config.{key}=.* is a URL"):
        self_training.train(config, home / "run")
    assert not (home / "run").exists()


def test_data_in_the_home_directory(home):
    write_two_classes(home / "data.npz", 8, 4)
    for written in ("~/data.npz", "$PLACE/data.npz"):
        assert len(sources.load("npz", written).y_train) == 8
        assert len(sources.load_named(written).y_test) == 4
    assert path_name("~/data.npz") == path_name(str(home / "data.npz"))
    np.savez(home / "extra.npz", data=np.zeros((2, 8, 8, 1), np.uint8))
    assert len(readers.read_images("~/extra.npz")) == 2
    with pytest.raises(InputError, match="data=gs://b/x.npz is a URL"):
        sources.load_named("gs://b/x.npz")


def test_flags(home, monkeypatch):
    def parse(*argv):
        forget_flags()
        monkeypatch.setattr("sys.argv", ["main.py", *argv])
        parse_flags(["main.py", *argv], modes.MODES)

    try:
        for name in (
            "workdir",
            "output",
            "path",
            "name_map",
            "torch_checkpoint",
            "torch_optimizer",
            "profile",
            "curves",
        ):
            flag = getattr(modes.flags, name.upper())
            parse("--mode=report", "--workdirs=a", f"--{name}=~/x")
            assert modes.path_of(flag) == home / "x"
            parse("--mode=report", "--workdirs=a", f"--{name}=gs://b/x")
            with pytest.raises(InputError, match=f"^{name}=gs://b/x is a URL"):
                modes.path_of(flag)
        parse("--mode=report", "--workdirs=~/a,$PLACE/b")
        assert modes.workdirs() == [home / "a", home / "b"]
    finally:
        forget_flags()
    (home / "mine.py").write_text("")
    assert find_config("~/mine.py:x") == f"{home / 'mine.py'}:x"


def test_options_of_the_other_programs(home, capsys):
    parser = Parser()
    parser.add_argument("--cases", type=pathlib.Path)
    assert parser.parse_args(["--cases=~/x"]) == argparse.Namespace(cases=home / "x")
    with pytest.raises(SystemExit):
        parser.parse_args(["--cases=gs://b/x"])
    assert "argument --cases: gs://b/x is a URL" in capsys.readouterr().err


def test_files_of_attacks(home):
    logits_fn = lambda x: jnp.stack([x.mean((1, 2, 3)), 0.5 + 0 * x.mean((1, 2, 3))], -1)
    x, y = np.full((2, 2, 2, 1), 0.6, np.float32), np.zeros(2, int)
    given = {"version": "custom", "attacks": rwp_jax.ApgdCE(steps=2)}
    rwp_jax.benchmark(logits_fn, (x, y), "l_inf", 0.01, path="~/record.json", **given)
    rwp_jax.autoattack(logits_fn, x, y, "l_inf", 0.01, log_path="$PLACE/log.txt", **given)
    assert (home / "record.json").exists() and (home / "log.txt").exists()
    with pytest.raises(InputError, match="^state_path=gs://b/x is a URL"):
        rwp_jax.autoattack(logits_fn, x, y, "l_inf", 0.01, state_path="gs://b/x", **given)
    with pytest.raises(InputError, match="^workdir=s3://b/x is a URL"):
        rwp_jax.load_run("s3://b/x")
