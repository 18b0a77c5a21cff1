"""Invalid config files and overrides are refused with one line."""

import pytest

from rwp_jax.command_line.config_file import load_config, one_line
from rwp_jax.command_line.modes import MODES
from rwp_jax.command_line.parsing import parse_flags
from rwp_jax.errors import InputError
from rwp_jax.training.config_checks import check_keys, check_types

STANDARD = """
from rwp_jax.configs import digits_at_rwp

def get_config():
    config = digits_at_rwp.get_config()
    {line}
    return config
"""


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "def get_config():\n    return 3",
            "its get_config returns a int, must return a ConfigDict",
        ),
        ("x = 3", "the file has no function get_config"),
        ("import nothere", "the file cannot be imported .No module named 'nothere'"),
        ("def get_config(): return 1 / 0", "the file fails .ZeroDivisionError: division by zero"),
        ("def get_config(): raise ValueError('too\\nlong')", "the file fails .ValueError: too.$"),
        ("def get_config(): open('gone.txt')", "the file fails .FileNotFoundError: .*'gone.txt'.$"),
        ("def get_config(): raise KeyError('seed')", "the file fails .KeyError: 'seed'.$"),
        ("def get_config(a, b): return 1", "the file fails .TypeError: get_config"),
        ("import sys; sys.exit(0)", "the file ends the program .SystemExit.$"),
        ("import sys; sys.exit('no GPU')", "the file ends the program .SystemExit: no GPU.$"),
        ("def get_config(:", "the file fails .SyntaxError"),
        (STANDARD.format(line="config.epochs = 1.5"), "it sets epochs=1.5, must be an integer"),
        (
            STANDARD.format(line="config.optimizer.nesterov = 'no'"),
            "it sets nesterov=no, must be True or False",
        ),
        (
            STANDARD.format(line="config.threat.epsilon = 'a'"),
            "it sets epsilon=a, must be a number",
        ),
    ],
)
def test_a_file_that_is_no_config(tmp_path, source, message):
    load_config("digits_at")  # an earlier config must not take its place
    path = tmp_path / "own.py"
    path.write_text(source)
    with pytest.raises(InputError, match=f"^--config={path}: {message}") as caught:
        load_config(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("raises", "said"),
    [
        ("ValueError('too\\nlong')", "ValueError: too"),
        ("TypeError('no')", "TypeError: no"),
        ("OSError('no disk')", "OSError: no disk"),
        ("OverflowError()", "OverflowError"),
    ],
)
def test_the_command_line_says_the_same(tmp_path, raises, said):
    """The message is the same whether Absl or ml_collections catches the exception of the file."""
    path = tmp_path / "own.py"
    path.write_text(f"def get_config():\n    raise {raises}")
    with pytest.raises(InputError, match=f"^--config={path}: the file fails .{said}.$"):
        parse_flags(["main.py", f"--config={path}"], MODES)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            "flag --config.epochs=1.5: invalid literal for int() with base 10: '1.5'",
            "--config.epochs=1.5 must be an integer",
        ),
        (
            "flag --config.threat.epsilon=a: could not convert string to float: 'a'",
            "--config.threat.epsilon=a must be a number",
        ),
    ],
)
def test_overrides_of_another_type(error, line):
    assert one_line(ValueError(error)) == line


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("typo", 3, "config.typo is not a key: did you mean config.dtype?"),
        ("optimizer.typo", 3, "config.optimizer.typo is not a key"),
        (
            "weight_perturbation.gama",
            0.1,
            "gama is not a key: did you mean config.weight_perturbation.gamma",
        ),
        ("epochs", 1.5, "config.epochs=1.5 must be an integer"),
        ("epochs", True, "config.epochs=True must be an integer"),
        ("batch_size", 16.0, "config.batch_size=16.0 must be an integer"),
        ("seed", None, "config.seed=None must be an integer"),
        ("optimizer.learning_rate", "0.1", "config.optimizer.learning_rate='0.1' must be a number"),
        ("optimizer.nesterov", 1, "config.optimizer.nesterov=1 must be True or False"),
        ("model.name", None, "config.model.name=None must be a string"),
        ("model.mean", 0.5, "config.model.mean=0.5 must be a tuple of numbers"),
        ("extra_data.path", 3, "config.extra_data.path=3 must be a string"),
    ],
)
def test_keys_and_types(key, value, message):
    """ConfigDict checks neither keys nor types of a config that is built by hand, for example from JSON."""
    config = load_config("digits_at_rwp").copy_and_resolve_references()
    *sections, name = key.split(".")
    section = config
    for part in sections:
        section = section[part]
    with section.ignore_type(), section.unlocked():
        section[name] = value
    with pytest.raises(InputError, match=message):
        check_keys(config)
        check_types(config)
