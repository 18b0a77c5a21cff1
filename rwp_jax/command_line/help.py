"""The text of --help: usage, the flags of each mode and, with --config, the keys of that config."""

import ast
import io
import pathlib
import re
import textwrap
import tokenize
from collections.abc import Mapping

from absl import flags

from rwp_jax import configs
from rwp_jax.command_line.config_file import CONFIG_FLAG, load_config
from rwp_jax.command_line.parsing import Mode
from rwp_jax.runs.config import flatten

_WIDTH, _INDENT = 100, " " * 6
_COMMON = ("mode", "workdir")


def key_comments() -> dict[str, str]:
    """Returns key or section of a config -> its comment in configs/default.py, after or above it."""
    source = pathlib.Path(configs.__path__[0], "default.py").read_text(encoding="utf-8")
    comments, above = {}, set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            comments[token.start[0]] = token.string.lstrip("# ")
            if token.line.lstrip().startswith("#"):
                above.add(token.start[0])
    found = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute):
            name = ast.unparse(node.targets[0]).removeprefix("config.")
            first = node.lineno
            while first - 1 in above:
                first -= 1
            lines = range(first, (node.end_lineno or node.lineno) + 1)
            found[name] = " ".join(comments[line] for line in lines if line in comments)
    return found


def _help_in(mode: str, text: str, modes: Mapping[str, Mode]) -> str:
    """Returns the part of a flag's help for a mode, one of several in `evaluate: ... . explain: ...`."""
    names = "|".join(modes)
    parts = re.split(rf"(?:^|(?<=[.;] ))((?:{names})(?:, (?:{names}))*): ", text)
    for heading, part in zip(parts[1::2], parts[2::2], strict=True):
        if mode in heading.split(", "):
            return part.rstrip("; ")
    return text


def _entry(name: str, text: str) -> str:
    lines = textwrap.wrap(text, _WIDTH - len(_INDENT))
    return "\n".join([f"  {name}", *(_INDENT + line for line in lines)])


def _flag(name: str, mode: str, modes: Mapping[str, Mode]) -> str:
    flag = flags.FLAGS[name]
    text = _help_in(mode, re.sub(";\\s+repeat this option.*", "", flag.help), modes)
    text = text[:1].upper() + text[1:]
    default = "" if flag.default in (None, "", [], False) else f" (default: {flag.default_as_str})"
    return _entry(f"--{name}" if not flag.boolean else f"--[no]{name}", text + default)


def _config_of(argv: list[str]) -> str | None:
    """Returns the value of --config on the command line, or None."""
    for before, argument in zip(["", *argv], argv, strict=False):
        match = CONFIG_FLAG.fullmatch(argument)
        if match and match[1] is not None:
            return match[1]
        if re.fullmatch("--?config", before):
            return argument
    return None


def _keys(name: str) -> str:
    """Describes the keys of a config, with its values."""
    comments, lines = key_comments(), [f"Keys of --config {name}, with its values:"]
    for key, value in flatten(load_config(name).to_dict()).items():
        lines.append(_entry(f"--config.{key}={value}", comments.get(key, "")))
    return "\n".join(lines)


def help_text(usage: str, argv: list[str], modes: Mapping[str, Mode]) -> str:
    """Returns the whole text of --help.

    Args:
      usage: first section of the text.
      argv: command line; if it names a config, the text explains the keys of that config too.
      modes: modes, by the value of --mode.

    Raises:
      InputError: if the config cannot be loaded.
    """
    sections = [usage.rstrip()]
    sections.append("\n".join(["In every mode:", *(_flag(name, "", modes) for name in _COMMON)]))
    order = list(flags.FLAGS.flags_by_module_dict()["rwp_jax.command_line.flags"])
    order = [flag.name for flag in order]
    for mode, takes in modes.items():
        names = sorted(takes.takes, key=order.index)
        sections.append("\n".join([f"--mode {mode}:", *(_flag(n, mode, modes) for n in names)]))
    config = _config_of(argv)
    if config:
        sections.append(_keys(config))
    else:
        sections.append("With --config FILE, --help lists the keys of that config too.")
    return "\n\n".join(sections)
