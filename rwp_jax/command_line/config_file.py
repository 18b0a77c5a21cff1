"""Finds and loads the file that --config names: a path, or the name of a config of the package."""

import difflib
import os
import pathlib
import re
import sys

import ml_collections
from absl import flags
from ml_collections import config_flags

from rwp_jax import configs
from rwp_jax.errors import InputError, check_path, first_line

CONFIG_FLAG = re.compile(r"--?config(?:=(.*))?")


def find_config(name: str) -> str:
    """Returns the file that --config names, by a path or by the name of a config of the package.

    A name is `cifar10_at_rwp` or, also outside the repository, `configs/cifar10_at_rwp.py`. An argument
    after a colon is kept.

    Raises:
      InputError: if there is no such file; ml_collections' message would be long.
    """
    path, colon, argument = name.partition(":")
    if path.startswith(("~", "$")):
        path = str(check_path("--config", path))
        name = f"{path}{colon}{argument}"
    if path.endswith(".py") and os.path.isfile(path):
        beside = str(pathlib.Path(path).resolve().parent)
        if beside not in sys.path:
            sys.path.append(beside)  # a config may import modules from its directory
        return name
    directory, known = pathlib.Path(configs.__path__[0]), pathlib.PurePath(path)
    if str(known.parent) in (".", "configs") and known.suffix in ("", ".py"):
        file = directory / f"{known.stem}.py"
        if file.is_file() and known.stem.isidentifier():
            return f"{file}{colon}{argument}"
    names = [file.stem for file in directory.glob("[!_]*.py")]
    near = difflib.get_close_matches(known.stem, names, 1)
    meant = f"; did you mean {near[0]}?" if near else ""
    why = "not found" if path.endswith(".py") else "not a config file"
    raise InputError(
        f"--config={path}: {why}; name a file, such as mine/config.py, or a config of the "
        f"package, such as digits_at_rwp{meant}"
    )


def with_config_file(argv: list[str]) -> list[str]:
    """Replaces the value of --config by the file that it names; raises InputError if there is none."""
    found, value_follows = [], False
    for argument in argv:
        match = CONFIG_FLAG.fullmatch(argument)
        if value_follows:
            argument = find_config(argument)
        elif match and match[1] is not None:
            argument = f"--config={find_config(match[1])}"
        value_follows = bool(match) and match[1] is None
        found.append(argument)
    return found


def config_name(argv: list[str]) -> str:
    """Returns the last value of --config in argv, which absl takes; "" without one."""
    name = ""
    for argument, following in zip(argv, [*argv[1:], ""], strict=True):
        if match := CONFIG_FLAG.fullmatch(argument):
            name = following if match[1] is None else match[1]
    return name


_KINDS = {"int": "an integer", "float": "a number", "bool": "True or False", "str": "a string"}
_WORDINGS = (
    (r"^flag (--\S+=.*): invalid literal for int\(\) .*", r"\1 must be an integer"),
    (r"^flag (--\S+=.*): \('Non-boolean argument.*", r"\1 must be True or False"),
    (r"^flag (--\S+=.*): could not convert string to float: .*", r"\1 must be a number"),
    (
        r"^Could not override field '(\w+)' \(reference\)\. (.*) is of original type .* to type "
        r"<class '(\w+)'>$",
        lambda match: (
            f"--config: it sets {match[1]}={match[2]}, must be {_KINDS.get(match[3], match[3])}"
        ),
    ),
)


def one_line(error: BaseException) -> str:
    """Shortens a message of absl or ml_collections to the line that states what is wrong."""
    # Long messages explain at their end why a config cannot be loaded.
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return _reworded(lines[-1] if lines else type(error).__name__)


def _reworded(line: str) -> str:
    for pattern, wording in _WORDINGS:
        line = re.sub(pattern, wording, line)
    if "get_config() takes 0 positional arguments" in line:
        line = "--config: this file takes nothing after ':'"
    if "has no attribute 'get_config'" in line:
        line = "--config: the file has no function get_config"
    return line


def _raised_by_file(error: BaseException) -> BaseException:
    """Returns the error that a config file raised, which ml_collections and absl may have wrapped."""
    while error.__context__ and (
        isinstance(error, flags.Error) or str(error).startswith("Error whilst parsing config file")
    ):
        error = error.__context__
    return error


def config_error(name: str, error: BaseException) -> InputError:
    """Returns the InputError for the file that `--config=NAME` names, which raised this error."""
    error = _raised_by_file(error)
    line, kind = _reworded(first_line(error)), type(error).__name__
    if line.startswith("--config="):
        return InputError(line)
    if isinstance(error, SystemExit):
        said = f": {line}" if isinstance(error.code, str) else ""
        line = f"the file ends the program (SystemExit{said})"
    elif isinstance(error, ImportError):
        line = f"the file cannot be imported ({line})"
    elif not isinstance(error, InputError) and not line.startswith("--config: "):
        line = f"the file fails ({kind if line == kind else f'{kind}: {line}'})"
    return InputError(f"--config={name}: {line.removeprefix('--config: ')}")


def check_config_dict(name: str, config) -> None:
    """Raises InputError if get_config of the file `name` did not return a ConfigDict."""
    if isinstance(config, ml_collections.ConfigDict):
        return
    given = type(config).__name__
    try:
        getattr(config, "keys", None)
    except OSError as error:  # ml_collections defers an OSError of the file until first access
        raise config_error(name, error.__cause__ or error) from None
    raise InputError(f"--config={name}: its get_config returns a {given}, must return a ConfigDict")


def load_config(name: str) -> ml_collections.ConfigDict:
    """Loads the config that `--config=NAME` selects; raises InputError if that fails."""
    file = find_config(name)
    # All files load into this one module, which would keep the names of earlier ones.
    sys.modules.pop("config_config", None)
    try:
        config = config_flags.config_flags.ConfigFileFlagParser("config", None).parse(file)
    except (Exception, SystemExit) as error:  # from the file or ml_collections; may have many lines
        raise config_error(name, error) from None
    check_config_dict(name, config)
    return config
