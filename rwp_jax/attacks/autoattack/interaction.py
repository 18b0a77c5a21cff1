"""Finds networks whose logits for an image depend on more than the image: its batch, or a frozen draw."""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from rwp_jax.attacks.arguments import EVALUATION_MODE
from rwp_jax.attacks.autoattack.equations import coarsest, draws
from rwp_jax.attacks.autoattack.forward import Forward
from rwp_jax.attacks.autoattack.model import Model
from rwp_jax.models.traced import same_arrays

# Changes of logits may be rounding errors below these shares of their spread and of their norm.
_SAME, _ROUNDING = 1e-4, 2e-5
_COARSE = 0.25  # largest share of the norm that is put down to low precision
_FROZEN = (
    f"dropout in training mode? For evaluation: {EVALUATION_MODE}; let a randomised defence take a key "
    "(logits_fn(images, key), randomized=True) and use version='rand'"
)


def _changes(found: np.ndarray, logits: np.ndarray, epsilon: float = 0.0) -> np.ndarray:
    """Changes [M] of logits relative to their spread over classes, 0 where they may be rounding errors.

    Neither an offset that all classes share nor the logit of a class that is masked out hides a change.

    Args:
      found: logits [M, classes] of the first M images.
      logits: logits [N, classes] that they are compared with.
      epsilon: machine epsilon of the least precise dtype in which they were computed.
    """
    found, logits = found.astype(np.float64), logits.astype(np.float64)
    both = np.concatenate([found, logits])
    varies = ~(both.min(0) == both.max(0))  # NaN varies
    if varies.sum() > 1:
        found, logits = found[:, varies], logits[:, varies]
    logits = logits[: len(found)]
    norm = lambda z: np.linalg.norm(z, axis=-1)
    spread = norm(logits - logits.mean(-1, keepdims=True))
    rounding = max(_ROUNDING, min(8 * epsilon, _COARSE)) * norm(logits)
    with np.errstate(invalid="ignore"):
        change = norm(found - logits)
    change = np.where(np.isnan(change), np.inf, change)  # NaN in `found` only
    return np.where(change > np.maximum(_SAME * spread, rounding), change / (spread + 1e-10), 0)


def _amount(change: float) -> str:
    """Says how large a change is, unless the spread that it is compared with is next to nothing."""
    digits = ".0f" if change > 0.1 else ".2g"  # not 1.1e+02
    return f", by up to {100 * change:{digits}}% of their spread" if change < 10 else ""


def interaction(model: Model, forward: Forward, x: np.ndarray, logits: np.ndarray) -> Iterator[str]:
    """Warns if an image's logits depend on the batch: on the other images, their order or their number."""
    finite = np.flatnonzero(np.isfinite(logits).all(-1))[: 2 * forward.size]
    if not len(finite):
        return
    x, logits = x[finite], logits[finite]
    devices = jax.local_device_count()
    other_size = forward.size // 2 if forward.size % (2 * devices) == 0 else 2 * forward.size
    # Negatives, so that even a single image has different images beside it.
    filled = np.concatenate([x, 1 - x]) if len(x) < other_size else x
    beside = lambda image: np.stack([image, *[1 - image] * (forward.size - 1)])
    tried = {
        "its place in its batch": lambda: forward(x[::-1])[::-1],
        "the others in its batch": lambda: np.stack([forward(beside(image))[0] for image in x[:3]]),
        "the size of its batch": lambda: forward(filled, other_size)[: len(x)],
    }
    epsilon = coarsest(model.program)
    causes, largest = [], 0.0
    for cause, again in tried.items():
        change = _changes(again(), logits, epsilon).max()
        if change > 0:
            causes.append(cause)
            largest = max(largest, change)
    if causes:
        yield (
            f"the logits of an image depend on {' and on '.join(causes)}{_amount(largest)}, and so do "
            f"verdicts: BatchNorm in training mode? For evaluation: {EVALUATION_MODE}"
        )


def interaction_of_random(model: Model, forward: Forward, x: np.ndarray) -> Iterator[str]:
    """Warns if logits depend, with key and place in the batch fixed, on the other images in the batch."""
    call = forward.calls

    def beside(image, other):
        forward.calls = call  # the same draw
        return forward(np.stack([image, *[other] * (forward.size - 1)]))[0]

    alike = np.stack([beside(image, image) for image in x[:3]])
    others = np.stack([beside(image, 1 - image) for image in x[:3]])
    changes = _changes(others, alike, coarsest(model.program))
    if (largest := changes[np.isfinite(changes)].max(initial=0)) > 0:
        yield (
            "the logits of an image depend, for the same key, on the others in its batch"
            f"{_amount(largest)}, and so do verdicts: BatchNorm in training mode? For evaluation: "
            f"{EVALUATION_MODE}"
        )


def unused_key(forward: Forward, x: np.ndarray) -> Iterator[str]:
    """Warns if a network that takes a key gives the same logits for another key."""
    call = forward.calls
    first, second = forward(x[: forward.size]), forward(x[: forward.size])
    forward.calls = call
    if np.array_equal(first, second, equal_nan=True):
        yield (
            "logits_fn(images, key) gives the same logits for two keys, so that nothing is averaged: is "
            "the key used? Random numbers from NumPy or from a fixed key are frozen"
        )


def randomness(
    forward: Callable, x: np.ndarray, y: np.ndarray, version: str, randomized: bool
) -> Iterator[str]:
    """Warns if five calls of forward (images -> logits) differ, unless version and settings allow it."""
    if version == "rand" or (version == "custom" and randomized):
        return
    logits = [forward(x) for _ in range(5)]
    finite = np.logical_and.reduce([np.isfinite(z).all(-1) for z in logits])
    if not finite.any():
        return
    logits, y = [z[finite] for z in logits], y[finite]
    counts = {int((z.argmax(-1) == y).sum()) for z in logits}
    changed = any(_changes(z, logits[0]).any() for z in logits[1:])
    if len(counts) > 1 or changed:
        yield "five identical calls of logits_fn differ: for a randomised defence use version='rand'"


def impurity(logits_fn: Callable, image_shape: tuple[int, ...], randomized: bool) -> Iterator[str]:
    """Warns if logits_fn draws random numbers outside JAX; a compiled program would freeze them."""

    def trace():
        def network(x, key):  # a new function each time: JAX keeps what it has traced
            return logits_fn(x, key) if randomized else logits_fn(x)

        images = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
        return jax.make_jaxpr(network)(images, jax.random.key(0))

    first, second = trace(), trace()
    if str(first.jaxpr) != str(second.jaxpr) or not same_arrays(first.consts, second.consts):
        yield f"logits_fn is not pure: its random numbers stay the same in compiled programs; {_FROZEN}"


def frozen_draws(model: Model) -> Iterator[str]:
    """Warns if a network that takes no key draws random numbers."""
    if draws(model.program):
        yield f"logits_fn draws random numbers from a fixed key, the same in every call; {_FROZEN}"
