"""What AutoAttack refuses."""

import jax
import numpy as np

from rwp_jax.attacks import arguments
from rwp_jax.errors import InputError, first_line


def check_images(x, y) -> tuple[np.ndarray, np.ndarray]:
    """Returns images float32 and labels int32 as NumPy arrays; raises InputError for bad ones."""
    if not (arguments.is_known(x) and arguments.is_known(y)):
        raise InputError(
            "x= and y= are traced within jax.jit or jax.vmap: AutoAttack runs outside of them"
        )
    try:
        x, y = np.asarray(x), np.asarray(y)
    except (TypeError, ValueError) as error:  # nested lists of unequal lengths, random keys
        raise InputError(f"x= and y= must be arrays: {first_line(error)}") from None
    arguments.check_images(x, y)
    if y.min() < 0 or y.max() >= 2**31:  # which int32 would wrap round to others
        raise InputError(f"y= has labels in [{y.min()}, {y.max()}], must have classes from 0 on")
    return np.clip(x, 0, 1).astype(np.float32), y.astype(np.int32)


def check_matmul_precision(precision: str) -> None:
    """Raises InputError for what jax.default_matmul_precision does not know."""
    try:
        with jax.default_matmul_precision(str(precision)):
            pass
    except Exception:
        raise InputError(
            f"precision={precision!r} must be known to jax.default_matmul_precision, as highest is"
        ) from None


def check_clean_logits(logits: np.ndarray, y: np.ndarray) -> None:
    """Raises InputError for clean logits [N, classes] that are all NaN, or too few for the labels."""
    if not np.isfinite(logits).all(-1).any():
        raise InputError(
            f"logits_fn returns NaN or infinite logits for each of the {len(logits)} clean images"
        )
    arguments.check_classes(y, logits.shape[-1])
