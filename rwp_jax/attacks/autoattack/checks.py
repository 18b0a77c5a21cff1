"""What AutoAttack refuses, and what it warns of because its result would mislead."""

from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from rwp_jax.attacks import arguments
from rwp_jax.attacks.autoattack.model import Model, same_arrays
from rwp_jax.attacks.autoattack.suite import Attack
from rwp_jax.errors import InputError, check_number, first_line


class AutoAttackWarning(UserWarning):
    """The robust accuracy that follows may be too high."""


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
    return x.astype(np.float32), y.astype(np.int32)


def check_epsilon(epsilon: float, norm: str) -> float:
    """Raises InputError unless epsilon is a positive number that float32 tells from zero."""
    # Beyond 1 the Linf ball holds every image; for L2 and L1 that is a matter of the image's size.
    largest = 1 if norm == "Linf" else 1000
    accepted = f"in (0, {largest}] (pixels are in [0, 1]) for {norm}"
    fits = lambda radius: bool(np.float32(radius) > 0) and radius <= largest
    return check_number("epsilon", epsilon, accepted, fits)


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
    """Raises InputError for clean logits [N, classes] that are not finite or too few for the labels."""
    bad = np.flatnonzero(~np.isfinite(logits).all(-1))
    if len(bad):
        raise InputError(
            f"logits_fn returns NaN or infinite logits for {len(bad)} of {len(logits)} clean images, "
            f"the first is number {bad[0]}"
        )
    arguments.check_classes(y, logits.shape[-1])


def _unit(logits: np.ndarray) -> np.ndarray:
    return logits / (np.linalg.norm(logits, axis=-1, keepdims=True) + 1e-10)


def interaction(logits_of: Callable, x: np.ndarray, logits: np.ndarray) -> Iterator[str]:
    """Warns where an image has other logits among copies of itself, which fill its batch."""
    (alone,) = logits_of(x[:1])
    if not np.linalg.norm(_unit(alone) - _unit(logits[0])) <= 1e-4:  # NaN among copies of itself
        yield (
            "the logits of an image depend on the others in its batch, as with BatchNorm in training mode: "
            "so do verdicts"
        )


def randomness(
    logits_of: Callable, x: np.ndarray, y: np.ndarray, version: str, randomized: bool
) -> Iterator[str]:
    """Warns where five equal calls of logits_of, (images, call number) -> logits, differ unannounced."""
    if version == "rand" or (version == "custom" and randomized):
        return
    logits = [logits_of(x, call) for call in range(5)]
    units = [_unit(z) for z in logits]
    counts = {int((z.argmax(-1) == y).sum()) for z in logits}
    spread = max(np.linalg.norm(u - v, axis=-1).max() for u in units for v in units)
    if len(counts) > 1 or spread > 1e-4:
        yield "five equal calls of logits_fn differ: for a randomised defence use version='rand'"


def drawn_at_trace(logits_fn: Callable, image_shape) -> Iterator[str]:
    """Warns where logits_fn draws random numbers outside of JAX, which a compiled program freezes."""
    trace = lambda: jax.make_jaxpr(lambda x: logits_fn(x))(
        jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
    )
    first, second = trace(), trace()
    if str(first.jaxpr) != str(second.jaxpr) or not same_arrays(first.consts, second.consts):
        yield (
            "logits_fn is not pure: its random numbers stay the same in compiled programs; "
            "let it take a key (logits_fn(images, key), randomized=True) and use version='rand'"
        )


def probabilities(logits: np.ndarray) -> Iterator[str]:
    """Warns where outputs look like a softmax's."""
    sums = np.abs(logits.sum(-1) - 1)
    if logits.max() < 1 + 1e-5 and logits.min() > -1e-5 and (sums < 1e-5).all():
        yield "logits_fn seems to return probabilities: losses of logits make the attacks weak on them"


def fitting(attacks: Sequence[Attack], num_classes: int) -> tuple[list[Attack], list[str]]:
    """The attacks that so many classes allow, and warnings about the others."""
    fit, warnings = [], []
    for attack in attacks:
        if num_classes < attack.least_classes:
            warnings.append(
                f"{attack.name} is left out: its loss needs {attack.least_classes} classes, there are "
                f"{num_classes}"
            )
            continue
        if attack.targets > num_classes - 1:
            warnings.append(
                f"{attack.name} has {num_classes - 1} target classes, not {attack.targets}: there are "
                "no more"
            )
        fit.append(attack)
    if not fit:
        raise InputError(f"attacks= leaves nothing: {'; '.join(warnings)}")
    return fit, warnings


def deterministic(model: Model, attacks: Sequence[Attack]) -> Iterator[str]:
    """Warns where gradients of a network without randomness are averaged."""
    if not model.randomized and any(getattr(attack, "eot", 1) > 1 for attack in attacks):
        yield (
            "gradients are averaged over equal evaluations: logits_fn takes no key; for a randomised "
            "defence give logits_fn(images, key) and randomized=True"
        )


def zero_gradients(attack: Attack, count: int) -> Iterator[str]:
    """Warns of searches whose loss, not bounded like the cross-entropy's, had no gradient."""
    if count and attack.least_classes > 2:
        yield (
            f"{attack.name} met {count} starting points with zero gradients: attacks by gradients may be "
            "unreliable"
        )


def gradient_masking(robust_after: dict[str, np.ndarray]) -> Iterator[str]:
    """Warns where Square breaks more than 0.2% of the images that the attacks before it left.

    Those after it do not count: in `plus` it is the fourth of six.
    """
    names = list(robust_after)  # in the order in which they ran, the clean images first
    if "square" not in names[2:]:
        return
    before = float(robust_after[names[names.index("square") - 1]].mean())
    after = float(robust_after["square"].mean())
    if after < before - 0.002:
        yield (
            f"Square lowered robust accuracy by {before - after:.2%} after the attacks that use "
            "gradients: gradients may be masked; try more queries and an adaptive attack"
        )
