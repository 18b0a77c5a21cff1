"""Error messages name arguments for Python callers, and flags and config keys on the command line."""

import ast
import pathlib
import re

import jax
import numpy as np
import pytest

import rwp_jax
from rwp_jax.errors import (
    InputError,
    as_flags,
    check_choice,
    check_integer,
    check_number,
    check_path,
    first_line,
    named_in,
    shown,
)

PACKAGE = pathlib.Path(rwp_jax.__file__).parent
COMMANDS = ("command_line", "parity", "zoo")  # the packages that parse flags


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("epsilon=8 must be in [0, 1]", "--epsilon=8 must be in [0, 1]"),
        ("epsilon= is missing: gamma= is not", "--epsilon is missing: gamma= is not"),
        ("devices=2 is for epsilon=", "--devices=2 is for --epsilon"),
        ("epsilon=: 'x' must be a number", "--epsilon: 'x' must be a number"),
        ("config.epsilon=8 must be", "config.epsilon=8 must be"),
        ("epsilon=9-x.ckpt is no file", "epsilon=9-x.ckpt is no file"),
        ("reading epsilon=1 needs epsilon=", "reading epsilon=1 needs --epsilon"),
        ("file=epsilon=9-x.ckpt is empty", "--file=epsilon=9-x.ckpt is empty"),
        ("the model fails: f(epsilon=3)", "the model fails: f(epsilon=3)"),
        ("the model fails: f(3, g(x), epsilon=3)", "the model fails: f(3, g(x), epsilon=3)"),
        ("in d/epsilon=2/file: no", "in d/epsilon=2/file: no"),
        ("steps=7/run is no run", "steps=7/run is no run"),
        ("steps=7 is no directory", "steps=7 is no directory"),
        ("take --epsilon=8, or x_epsilon=8", "take --epsilon=8, or x_epsilon=8"),
    ],
)
def test_arguments_become_flags(message, said):
    given = {"epsilon": None, "devices": None, "file": "epsilon=9-x.ckpt"}
    given |= {"runs": ["epsilon=1", "./steps=7//run/"], "steps": None}
    assert as_flags(InputError(message), given) == said


def test_arguments_become_keys():
    def said(message):
        with (
            pytest.raises(InputError) as caught,
            named_in("config.threat", "norm", epsilon="config.b"),
        ):
            raise InputError(message)
        return str(caught.value)

    assert said("norm='l1' must be") == "config.threat.norm='l1' must be"
    assert said("epsilon=8 must be") == "config.b.epsilon=8 must be"
    assert said("it fails") == "config.threat: it fails"


IN_RANGE = lambda value: 0 <= value < 1


@pytest.mark.parametrize(
    "value", [-1, 1, float("nan"), float("inf"), "0", b"0", None, True, np.True_, 1j, [0], 10**400]
)
def test_what_is_no_number_in_range(value):
    with pytest.raises(InputError, match="^x=.* must be in \\[0, 1\\)$"):
        check_number("x", value, "in [0, 1)", IN_RANGE)


@pytest.mark.parametrize(
    "value", [-1, 0.0, 1.5, "0", None, True, np.True_, 2**31, np.float32(1), [0]]
)
def test_what_is_no_integer_in_range(value):
    with pytest.raises(InputError, match="^x=.* must be an integer of at least 0"):
        check_integer("x", value, 0)


def test_numbers_of_any_library():
    for value in (np.float32(0.5), np.array(0.5), jax.numpy.asarray(0.5), 0.5):
        assert check_number("x", value, "in [0, 1)", IN_RANGE) == 0.5
    for value in (np.int64(3), np.array(3), jax.numpy.asarray(3), 3):
        assert check_integer("x", value, 0) == 3
    with pytest.raises(InputError, match="^x= is traced within jax.jit"):
        jax.jit(lambda x: check_number("x", x, "in [0, 1)", IN_RANGE))(0.5)
    with pytest.raises(InputError, match="^x= is traced within jax.jit"):
        jax.jit(lambda x: check_integer("x", x, 0))(3)


@pytest.mark.parametrize("value", [3, None, True, b"runs", ""])
def test_what_is_no_path(value):
    with pytest.raises(InputError, match="^workdir=.* must be a path$"):
        check_path("workdir", value)
    assert check_path("workdir", "runs") == pathlib.Path("runs")


def test_values_in_messages_are_one_short_line():
    class Broken:
        def __repr__(self):
            raise ZeroDivisionError

    assert shown(Broken()) == "<Broken>"
    assert shown(np.eye(2)) == "array([[1., 0.],..."
    assert shown("x" * 99) == f"'{'x' * 79}..."
    assert first_line(ValueError("\n\n  that\nthis")) == "that"
    assert first_line(ValueError("\n")) == first_line(ValueError()) == "ValueError"


@pytest.mark.parametrize("value", ["L_inf", 3, None, np.array(["l_inf", "l_2"]), ["l_inf"], b"l_2"])
def test_what_is_none_of_the_choices(value):
    with pytest.raises(InputError, match=r"^norm=.* must be one of l_inf, l_2$"):
        check_choice("norm", value, ("l_inf", "l_2"))


def raised(path: pathlib.Path):
    """Yields the constants in the `raise` statements of a file's InputErrors."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Raise) and "InputError" in ast.dump(node):
            yield from (part.value for part in ast.walk(node) if isinstance(part, ast.Constant))


def test_only_commands_speak_of_flags():
    for path in PACKAGE.rglob("*.py"):
        if path.relative_to(PACKAGE).parts[0] not in COMMANDS:
            for text in filter(lambda text: isinstance(text, str), raised(path)):
                assert not re.search(r"--[a-z]", text), (path, text)
