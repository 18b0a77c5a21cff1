"""Names that users type: shell patterns, and what an unknown key may have meant."""

import difflib
import fnmatch
from collections.abc import Collection

from rwp_jax.errors import InputError, shown

# Names of norms in configs, and as AutoAttack's users write them.
AUTOATTACK_NORMS = {"l_inf": "Linf", "l_2": "L2", "l_1": "L1"}


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


def norm_name(argument: str, value: object, accepted: Collection[str]) -> str:
    """A config's name of a norm, `l_inf`, `l_2` or `l_1`, for any spelling: Linf, L_inf, l2, L1.

    Raises:
      InputError: which names the argument, unless the norm is one of those accepted.
    """
    letters = value.lower().replace("_", "") if isinstance(value, str) else ""
    named = {norm.replace("_", ""): norm for norm in accepted}
    if letters not in named:
        raise InputError(f"{argument}={shown(value)} must be one of {', '.join(accepted)}")
    return named[letters]
