"""Names and settings of the official package; slots refuse misspelled settings."""

import contextlib
import dataclasses
import re
from collections.abc import Iterator

from rwp_jax.errors import InputError

# Names in the official class for arguments of `autoattack`.
_NAMES = {
    "x": "x_orig",
    "y": "y_orig",
    "epsilon": "eps",
    "batch_size": "bs",
    "key": "seed",
    "restarts": "n_restarts",
    "steps": "n_iter",
    "eot": "eot_iter",
    "queries": "n_queries",
    "p": "p_init",
    "targets": "n_target_classes",
}
_NAME = re.compile(rf"\b({'|'.join(_NAMES)})=")


@contextlib.contextmanager
def official_names() -> Iterator[None]:
    """Makes errors raised in the `with` block name arguments as the official class does."""
    try:
        yield
    except InputError as error:
        message = _NAME.sub(lambda match: f"{_NAMES[match[1]]}=", str(error))
        raise InputError(re.sub("^logits_fn", "model", message)) from None


@dataclasses.dataclass(slots=True)
class ApgdSettings:
    """Settings of `apgd-ce` and `apgd-dlr`; `use_largereps` is for L1."""

    n_restarts: int = 5
    n_iter: int = 100
    eot_iter: int = 1
    use_largereps: bool = False


@dataclasses.dataclass(slots=True)
class ApgdTargetedSettings:
    """Settings of `apgd-t`; `use_largereps` is for L1."""

    n_restarts: int = 1
    n_target_classes: int = 9
    n_iter: int = 100
    eot_iter: int = 1
    use_largereps: bool = False


@dataclasses.dataclass(slots=True)
class FabSettings:
    """Settings of `fab` and `fab-t`."""

    n_restarts: int = 5
    n_target_classes: int = 9
    n_iter: int = 100


@dataclasses.dataclass(slots=True)
class SquareSettings:
    """Settings of `square`."""

    n_restarts: int = 1
    n_queries: int = 5000
    p_init: float = 0.8
