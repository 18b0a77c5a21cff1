"""Checks of AutoAttack's arguments."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rwp_jax.attacks import arguments
from rwp_jax.attacks.autoattack.model import Model
from rwp_jax.attacks.autoattack.settings import Attack, Square
from rwp_jax.errors import InputError, check_path, first_line


def check_images(x, y) -> tuple[np.ndarray, np.ndarray]:
    """Returns images float32 and labels int32 as NumPy arrays; raises InputError if they are invalid."""
    if not (arguments.is_known(x) and arguments.is_known(y)):
        raise InputError(
            "x= and y= are traced within jax.jit or jax.vmap: AutoAttack runs outside of them"
        )
    try:
        x, y = np.asarray(x), np.asarray(y)
    except (TypeError, ValueError) as error:  # nested lists of unequal lengths, random keys
        raise InputError(f"x= and y= must be arrays: {first_line(error)}") from None
    arguments.check_images(x, y)
    if y.min() < 0 or y.max() >= 2**31:  # larger labels would overflow int32
        raise InputError(f"y= has labels in [{y.min()}, {y.max()}], must be in [0, 2^31)")
    return np.clip(x, 0, 1).astype(np.float32), y.astype(np.int32)


def check_file(name: str, path: Any) -> pathlib.Path | None:
    """Returns the path of a file to write, None for None; raises InputError if it cannot be written."""
    if path is None:
        return None
    path = check_path(name, path)
    parent = path.absolute().parent
    if not parent.is_dir():
        raise InputError(f"{name}={path}: there is no such directory")
    if path.is_dir():
        raise InputError(f"{name}={path} is a directory, must be a file")
    if path.exists() and not os.access(path, os.W_OK):
        raise InputError(f"{name}={path}: no permission to write to this file")
    if not os.access(parent, os.W_OK):
        raise InputError(f"{name}={path}: no permission to write in its directory")
    return path


def as_array(name: str, value: Any) -> np.ndarray:
    """Returns an argument as a NumPy array; raises InputError for ragged lists and traced arrays."""
    try:
        return np.asarray(value)
    except Exception as error:
        raise InputError(f"{name}= must be an array: {first_line(error)}") from None


def check_targets(
    targets: Any, y: np.ndarray, num_classes: int, attacks: Sequence[Attack]
) -> np.ndarray | None:
    """Returns the caller's target classes as int32 [N, T]; raises InputError if they are invalid."""
    if targets is None:
        return None
    if not any(attack.targets for attack in attacks):
        names = ", ".join(attack.name for attack in attacks)
        raise InputError(f"targets= is for apgd-t and fab-t, the attacks are {names}")
    targets = as_array("targets", targets)
    columns = targets[:, None] if targets.ndim == 1 else targets
    if (
        columns.ndim != 2
        or len(columns) != len(y)
        or not columns.size
        or columns.dtype.kind not in "iu"
    ):
        raise InputError(
            f"targets= is {targets.dtype}{list(targets.shape)}, must be integer classes [{len(y)}] or "
            f"[{len(y)}, T]"
        )
    if columns.min() < 0 or columns.max() >= num_classes:
        raise InputError(
            f"targets= has classes in [{columns.min()}, {columns.max()}], must be in [0, {num_classes})"
        )
    same = np.flatnonzero((columns == y[:, None]).any(1))
    if len(same):
        raise InputError(
            f"targets= has the label itself for {len(same)} images, the first is number {same[0]}"
        )
    return columns.astype(np.int32)


def check_gradient(model: Model, attacks: Sequence[Attack]) -> None:
    """Raises InputError if attacks need a gradient and the network has none."""
    needing = [attack.name for attack in attacks if not isinstance(attack, Square)]
    if needing and model.no_gradient:
        raise InputError(
            f"logits_fn has no gradient with respect to images ({model.no_gradient}), required by "
            f"{', '.join(needing)}: give gradient_fn=, or attack with square only"
        )


def check_matmul_precision(precision: str) -> None:
    """Raises InputError unless jax.default_matmul_precision and the platform accept the precision."""
    about = (
        f"precision={precision!r} must be a value of jax.default_matmul_precision, such as highest"
    )
    matrix = jax.ShapeDtypeStruct((2, 2), np.float32)
    try:
        with jax.default_matmul_precision(str(precision)):
            traced = jax.jit(jnp.dot).trace(matrix, matrix)
    except Exception:
        raise InputError(about) from None
    try:
        traced.lower()
    except Exception:  # a dot algorithm of other hardware
        raise InputError(f"{about}, that {jax.default_backend()} devices support") from None


def check_clean_logits(logits: np.ndarray) -> None:
    """Raises InputError if the clean logits [N, classes] of every image are non-finite."""
    if not np.isfinite(logits).all(-1).any():
        raise InputError(
            f"logits_fn returns NaN or infinite logits for each of the {len(logits)} clean images"
        )
