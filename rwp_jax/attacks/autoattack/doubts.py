"""Warnings about networks and settings for which AutoAttack's result would mislead."""

from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from rwp_jax.attacks.arguments import EVALUATION_MODE
from rwp_jax.attacks.autoattack.equations import coarsest, differentiates, draws
from rwp_jax.attacks.autoattack.forward import Forward
from rwp_jax.attacks.autoattack.model import Model
from rwp_jax.attacks.autoattack.settings import ApgdCE, Attack
from rwp_jax.errors import InputError
from rwp_jax.models.traced import same_arrays

_SAME = 1e-4  # distances between logits of unit norm above this are not rounding errors
_FROZEN = (
    f"dropout in training mode? For evaluation: {EVALUATION_MODE}; let a randomised defence take a key "
    "(logits_fn(images, key), randomized=True) and use version='rand'"
)
_SEVERAL = 3  # fewest images broken by Square that indicate masked gradients


class AutoAttackWarning(UserWarning):
    """The robust accuracy may be wrong, in most cases too high."""


def _unit(logits: np.ndarray) -> np.ndarray:
    logits = logits.astype(np.float64)
    return logits / (np.linalg.norm(logits, axis=-1, keepdims=True) + 1e-10)


def interaction(model: Model, forward: Forward, x: np.ndarray, logits: np.ndarray) -> Iterator[str]:
    """Warns if an image's logits depend on the batch: on the other images, their order or their number."""
    finite = np.flatnonzero(np.isfinite(logits).all(-1))[: 2 * forward.size]
    x, logits = x[finite], logits[finite]
    devices = jax.local_device_count()
    other_size = forward.size // 2 if forward.size % (2 * devices) == 0 else 2 * forward.size
    # Negatives, so that even a single image has different images beside it.
    beside = lambda image: np.stack([image, *[1 - image] * (forward.size - 1)])
    tried = {
        "its place in its batch": lambda: forward(x[::-1])[::-1],
        "the others in its batch": lambda: np.stack([forward(beside(image))[0] for image in x[:3]]),
        "the size of its batch": lambda: forward(x, other_size),
    }
    allowed = max(_SAME, 8 * coarsest(model.program))
    causes, largest = [], 0.0
    for cause, again in tried.items():
        found = again()
        change = np.linalg.norm(_unit(found) - _unit(logits[: len(found)]), axis=-1)
        change = np.where(np.isnan(change), np.inf, change)  # NaN in this batch only
        if change.max() > allowed:
            causes.append(cause)
            largest = max(largest, change.max())
    if causes:
        amount = f", by up to {100 * largest:.2g}% of their norm" if np.isfinite(largest) else ""
        yield (
            f"the logits of an image depend on {' and on '.join(causes)}{amount}, and so do verdicts: "
            f"BatchNorm in training mode? For evaluation: {EVALUATION_MODE}"
        )


def interaction_of_random(model: Model, forward: Forward, x: np.ndarray) -> Iterator[str]:
    """Warns if logits depend, with key and place in the batch fixed, on the other images in the batch."""
    call, largest = forward.calls, 0.0
    for image in x[:3]:
        logits = []
        for other in (image, 1 - image):
            forward.calls = call  # the same draw
            logits.append(_unit(forward(np.stack([image, *[other] * (forward.size - 1)]))[0]))
        change = float(np.linalg.norm(logits[0] - logits[1]))
        if np.isfinite(change):
            largest = max(largest, change)
    if forward.size > 1 and largest > max(_SAME, 8 * coarsest(model.program)):
        yield (
            "the logits of an image depend, for the same key, on the others in its batch, by up to "
            f"{100 * largest:.2g}% of their norm, and so do verdicts: BatchNorm in training mode? For "
            f"evaluation: {EVALUATION_MODE}"
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
    units = [_unit(z) for z in logits]
    counts = {int((z.argmax(-1) == y).sum()) for z in logits}
    spread = max(np.linalg.norm(u - v, axis=-1).max() for u in units for v in units)
    if len(counts) > 1 or spread > _SAME:
        yield "five identical calls of logits_fn differ: for a randomised defence use version='rand'"


def impurity(logits_fn: Callable, image_shape: tuple[int, ...]) -> Iterator[str]:
    """Warns if logits_fn draws random numbers outside JAX; a compiled program would freeze them."""
    trace = lambda: jax.make_jaxpr(lambda x: logits_fn(x))(
        jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
    )
    first, second = trace(), trace()
    if str(first.jaxpr) != str(second.jaxpr) or not same_arrays(first.consts, second.consts):
        yield f"logits_fn is not pure: its random numbers stay the same in compiled programs; {_FROZEN}"


def frozen_draws(model: Model) -> Iterator[str]:
    """Warns if a network that takes no key draws random numbers."""
    if draws(model.program):
        yield f"logits_fn draws random numbers from a fixed key, the same in every call; {_FROZEN}"


def gradients_inside(model: Model) -> Iterator[str]:
    """Warns if logits_fn takes gradients, as defences that optimise at test time do."""
    if differentiates(model.program):
        yield (
            "logits_fn takes gradients itself, as defences that adapt the image or the network at test "
            "time do: standard attacks may be weak on it; add an adaptive attack"
        )


def probabilities(logits: np.ndarray) -> Iterator[str]:
    """Warns if the outputs look like those of a softmax."""
    logits = logits[np.isfinite(logits).all(-1)]
    sums = np.abs(logits.sum(-1) - 1)
    if logits.max() < 1 + 1e-5 and logits.min() > -1e-5 and (sums < 1e-5).all():
        yield "logits_fn seems to return probabilities: the attacks need logits and are weak on these"


def nothing_correct(logits: np.ndarray, y: np.ndarray) -> Iterator[str]:
    """Warns if no image is classified correctly, so that there is nothing to attack."""
    if not (logits.argmax(-1) == y).any():
        yield (
            f"clean accuracy is 0: none of the {len(y)} images is classified as its label; do the labels "
            "belong to these images, are the classes in the same order, are pixels scaled only once?"
        )


def about_network(
    logits_fn: Callable,
    model: Model,
    forward: Forward,
    x: np.ndarray,
    y: np.ndarray,
    logits: np.ndarray,
) -> Iterator[str]:
    """Yields the warnings that need no attack; `logits` are those of the clean images."""
    if model.randomized:
        yield from interaction_of_random(model, forward, x)
    else:
        impure = list(impurity(logits_fn, x.shape[1:]))
        yield from impure
        # Frozen random numbers differ between batch sizes and would be mistaken for interaction.
        if not impure:
            yield from frozen_draws(model)
            yield from interaction(model, forward, x, logits)
    yield from gradients_inside(model)
    yield from probabilities(logits)
    yield from nothing_correct(logits, y)


def disagreement(robust: np.ndarray, correct: np.ndarray, given_up: list[int]) -> Iterator[str]:
    """Warns if a further evaluation of x_adv contradicts the verdicts."""
    differs = robust != correct
    differs[given_up] = False
    if differs.any():
        first = int(np.flatnonzero(differs)[0])
        yield (
            f"{differs.sum()} images of x_adv are classified differently when evaluated once more, the "
            f"first is number {first}: logits_fn does not give an image the same logits in every call or "
            "batch"
        )


def fitting(
    attacks: Sequence[Attack], num_classes: int, chosen: bool
) -> tuple[list[Attack], list[str]]:
    """Returns the attacks that support the number of classes, and warnings about the others.

    More targets than there are other classes mean all other classes. A warning says so only if the caller
    chose the number of targets, not if it comes from a version or a default.

    Raises:
      InputError: if no attack supports the number of classes.
    """
    fit, warnings = [], []
    for attack in attacks:
        if num_classes < attack.least_classes:
            warnings.append(
                f"{attack.name} is left out: its loss needs {attack.least_classes} classes, there are "
                f"{num_classes}"
            )
            continue
        too_many = attack.targets > num_classes - 1
        if chosen and too_many and attack.targets != type(attack).targets:
            warnings.append(
                f"{attack.name} has {num_classes - 1} target classes, not {attack.targets}: the network "
                "has no others"
            )
        fit.append(attack)
    if not fit:
        raise InputError(f"attacks= leaves no attack to run: {'; '.join(warnings)}")
    return fit, warnings


def deterministic(model: Model, attacks: Sequence[Attack]) -> Iterator[str]:
    """Warns if gradients of a network that takes no key are averaged over several evaluations."""
    if not model.randomized and any(getattr(attack, "eot", 1) > 1 for attack in attacks):
        yield (
            "gradients are averaged over identical evaluations: logits_fn takes no key; for a randomised "
            "defence give logits_fn(images, key) and randomized=True"
        )


def not_finite(what: str, images: Sequence[int]) -> Iterator[str]:
    """Warns of images for which logits, losses or gradients are non-finite."""
    if len(images):
        numbers = ", ".join(map(str, images[:10])) + (", ..." if len(images) > 10 else "")
        many = f"{len(images)} image{'s' if len(images) > 1 else ''}"
        count = "they count" if len(images) > 1 else "it counts"
        yield (
            f"logits, losses or gradients are NaN or infinite for {many} {what} (number {numbers}): "
            f"{count} as not robust"
        )


def zero_gradients(attack: Attack, count: int) -> Iterator[str]:
    """Warns of searches that began with a zero gradient, except with APGD-CE.

    The gradient of the cross-entropy can vanish by rounding alone.
    """
    if count and not isinstance(attack, ApgdCE):
        yield (
            f"{attack.name} met {count} starting points with zero gradients: gradient-based attacks may be "
            "unreliable"
        )


def gradient_masking(
    robust_after: dict[str, np.ndarray], individual: bool = False
) -> Iterator[str]:
    """Warns if Square breaks several images, and more than 0.2%, that withstood the attacks before it.

    Attacks after Square, which is the fourth of six in `plus`, do not count. If attacks ran alone
    (`individual`), Square is compared with all others together.
    """
    names = list(robust_after)  # `clean`, then the attacks in the order in which they ran
    if "square" not in names[2:] and not (individual and names[1:2] == ["square"] and names[2:]):
        return
    before = robust_after[names[names.index("square") - 1]]
    if individual:
        others = [robust for name, robust in robust_after.items() if name != "square"]
        before = np.logical_and.reduce(others)
    broken = int((before & ~robust_after["square"]).sum())
    if broken >= _SEVERAL and broken > 0.002 * len(before):
        yield (
            f"Square broke {broken} of the {before.sum()} images that withstood gradient-based attacks: "
            "gradients may be masked; try Square(queries=20_000) and an adaptive attack whose gradients "
            "bypass the masking"
        )
