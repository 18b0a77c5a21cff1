"""Names: shell patterns, spellings of norms, hints for unknown keys, and paths of the leaves of a tree."""

import difflib
import fnmatch
import re
from collections.abc import Collection
from typing import Any

import jax

from rwp_jax.errors import InputError, shown

# Names of norms -> their names in the official AutoAttack package.
OFFICIAL_NORMS = {"l_inf": "Linf", "l_2": "L2", "l_1": "L1"}


def by_path(tree: Any, separator: str = "/") -> dict[str, Any]:
    """Returns path -> leaf of a tree, in its order, such as `conv1/kernel`."""
    return {
        jax.tree_util.keystr(path, simple=True, separator=separator): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def matches(name: str, patterns: str) -> bool:
    """Returns whether any of the comma-separated shell patterns matches the name."""
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns.split(","))


def hint_at(key: str, known: Collection[str], prefix: str = "") -> str:
    """Returns a hint for an unknown key: that it is a section, or the most similar key.

    Args:
      key: dotted key, such as `threat.epsilom`.
      known: all keys of the config.
      prefix: text before the suggested key, such as `--config.`.
    """
    section = [other for other in known if other.startswith(key + ".")]
    if section:
        return f"it is a section, with keys such as {section[0]}; rwp_jax.configs.default lists all keys"
    nearest = difflib.get_close_matches(key, known, 1)
    meant = f"did you mean {prefix}{nearest[0]}? " if nearest else ""
    return f"{meant}rwp_jax.configs.default lists all keys"


def spelled(norm: str) -> str:
    """Returns `l_inf`, `l_2` or `l_1` for any of their spellings (Linf, L_inf, l2); others unchanged."""
    match = re.fullmatch("l_?(inf|2|1)", norm, re.IGNORECASE)
    return f"l_{match[1].lower()}" if match else norm


def norm_name(argument: str, value: object, accepted: Collection[str] = OFFICIAL_NORMS) -> str:
    """Returns the name of a norm, `l_inf`, `l_2` or `l_1`, for any of its spellings.

    Raises:
      InputError: naming the argument, if the norm is not one of those accepted.
    """
    name = spelled(value) if isinstance(value, str) else None
    if name not in accepted:
        *others, last = accepted
        raise InputError(f"{argument}={shown(value)} must be {', '.join(others)} or {last}")
    return name


def listed(names: Collection[str], most: int = 8) -> str:
    """Returns the first `most` names, comma-separated, and ... if there are others."""
    return ", ".join(list(names)[:most]) + (", ..." if len(names) > most else "")
