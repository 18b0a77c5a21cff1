"""Names that users type: shell patterns, and what an unknown key may have meant."""

import difflib
import fnmatch
from collections.abc import Collection


def matches(name: str, patterns: str) -> bool:
    """Whether any of the comma-separated shell patterns matches the name."""
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns.split(","))


def hint_at(key: str, known: Collection[str], prefix: str = "") -> str:
    """Says of an unknown key which section it is, or which key is near.

    Args:
      key: dotted, such as `threat.epsilom`.
      known: all keys of the config.
      prefix: before a key that is named, such as `--config.`.
    """
    section = [other for other in known if other.startswith(key + ".")]
    if section:
        return (
            f"it is a section, with keys such as {section[0]}; rwp_jax.configs.default has them all"
        )
    nearest = difflib.get_close_matches(key, known, 1)
    meant = f"did you mean {prefix}{nearest[0]}? " if nearest else ""
    return f"{meant}rwp_jax.configs.default has them all"
