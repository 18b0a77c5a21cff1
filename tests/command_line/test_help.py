"""The output of --help, and the errors for unknown flags."""

import os
import subprocess
import sys

import pytest

from rwp_jax.command_line import flags
from rwp_jax.command_line.help import help_text, key_comments
from rwp_jax.command_line.modes import MODES
from rwp_jax.command_line.parsing import parse_flags
from rwp_jax.configs import default
from rwp_jax.errors import InputError
from rwp_jax.runs.config import flatten
from tests.fresh_flags import forget_flags


def sections(*argv):
    """Returns the text below each heading of the help."""
    parts = help_text("usage", list(argv), MODES).split("\n\n")
    return {part.partition("\n")[0]: part.partition("\n")[2] for part in parts}


def test_each_mode_has_its_flags():
    found = sections()
    for mode, takes in MODES.items():
        lines = found[f"--mode {mode}:"].splitlines()
        named = {line.split("]")[-1].strip().lstrip("-") for line in lines if line[2:3] == "-"}
        assert named == set(takes.takes)


def test_a_flag_of_two_modes_is_explained_in_each():
    found = sections()
    assert "Number of training images; 0: 256." in found["--mode explain:"]
    assert "training images; 0: 256" not in found["--mode evaluate:"]
    assert "(default: 'digits')" in found["--mode reproduce:"]


def test_every_key_has_a_comment_and_is_listed_with_a_config():
    comments, keys = key_comments(), flatten(default.get_config().to_dict())
    assert all(comments[key] for key in keys)
    listed = sections("--config=digits_at_rwp")["Keys of --config digits_at_rwp, with its values:"]
    assert "--config.epochs=150\n" in listed
    assert all(f"--config.{key}=" in listed for key in keys)
    assert "pixels added on each side before a random crop" in listed
    assert not any(heading.startswith("Keys of") for heading in sections())
    with pytest.raises(InputError, match="--config=nowhere: not a config file"):
        sections("--config", "nowhere")


@pytest.fixture
def parse(monkeypatch):
    """Parses a command line into fresh flags and resets them after the test."""
    monkeypatch.setattr(sys, "argv", ["main.py"])

    def run(*argv):
        forget_flags()
        parse_flags(["main.py", *argv], MODES)

    yield run
    forget_flags()


def test_help_ends_with_0_and_into_a_closed_pipe_without_a_word():
    command = [sys.executable, "-m", "rwp_jax", "--help"]
    done = subprocess.run(command, capture_output=True)
    assert done.returncode == 0 and done.stdout.startswith(b"Trains a classifier")
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert done.returncode == 0 and not done.stderr


@pytest.mark.parametrize(
    ("argv", "about"),
    [
        (
            ["--config=digits_at", "--epochs=2"],
            "--epochs is not a flag: did you mean --config.epochs",
        ),
        (["--config=digits_at", "--gamma=1"], "did you mean --config.weight_perturbation.gamma?"),
        (["--mode=evaluate", "--epsilom=1"], r"--epsilom is not a flag: did you mean --epsilon\?"),
        (["--mode=evaluate", "--gamma=1"], "--gamma is not a flag: "),
        (["--epochs=2"], "--epochs is not a flag: did you mean --config.epochs"),
        (["--config=digits_at", "--xyzzy"], "--xyzzy is not a flag: see --help"),
    ],
)
def test_flags_that_there_are_not(parse, argv, about):
    with pytest.raises(InputError, match=about):
        parse(*argv)


def test_a_flag_given_once_counts_once(parse):
    parse("--mode=reproduce", "--override=epochs=1", "--override", "seed=2")
    assert flags.SETTINGS.value == ["epochs=1", "seed=2"]
