"""What AutoAttack warns of because its result would mislead."""

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

_SAME = 1e-4  # distance of logits of unit norm that rounding does not explain
_FROZEN = (
    f"dropout in training mode? For evaluation: {EVALUATION_MODE}; let a randomised defence take a key "
    "(logits_fn(images, key), randomized=True) and use version='rand'"
)
_SEVERAL = 3  # images that Square must break to say something about gradients


class AutoAttackWarning(UserWarning):
    """The robust accuracy that follows may be wrong, mostly too high."""


def _unit(logits: np.ndarray) -> np.ndarray:
    logits = logits.astype(np.float64)
    return logits / (np.linalg.norm(logits, axis=-1, keepdims=True) + 1e-10)


def interaction(model: Model, forward: Forward, x: np.ndarray, logits: np.ndarray) -> Iterator[str]:
    """Warns where images have other logits in other company, or in a batch of other order or size."""
    finite = np.flatnonzero(np.isfinite(logits).all(-1))[: 2 * forward.size]
    x, logits = x[finite], logits[finite]
    devices = jax.local_device_count()
    other_size = forward.size // 2 if forward.size % (2 * devices) == 0 else 2 * forward.size
    # Negatives, so that a single image has others beside it too.
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
        change = np.where(np.isnan(change), np.inf, change)  # NaN in this batch alone
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
    """The same for a network that takes a key: one draw, one place in the batch, other images beside."""
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
    """Warns where five calls of forward, images -> logits, differ unannounced."""
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
        yield "five equal calls of logits_fn differ: for a randomised defence use version='rand'"


def impurity(logits_fn: Callable, image_shape: tuple[int, ...]) -> Iterator[str]:
    """Warns where logits_fn draws random numbers outside of JAX, which a compiled program freezes."""
    trace = lambda: jax.make_jaxpr(lambda x: logits_fn(x))(
        jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
    )
    first, second = trace(), trace()
    if str(first.jaxpr) != str(second.jaxpr) or not same_arrays(first.consts, second.consts):
        yield f"logits_fn is not pure: its random numbers stay the same in compiled programs; {_FROZEN}"


def frozen_draws(model: Model) -> Iterator[str]:
    """Warns where a network that takes no key draws random numbers all the same."""
    if draws(model.program):
        yield f"logits_fn draws random numbers from a key of its own, the same in every call; {_FROZEN}"


def gradients_inside(model: Model) -> Iterator[str]:
    """Warns where logits_fn takes gradients, as defences do that optimise at test time."""
    if differentiates(model.program):
        yield (
            "logits_fn takes gradients itself, as defences do that change the image or the network at test "
            "time: standard attacks may be weak on it; add an adaptive attack"
        )


def probabilities(logits: np.ndarray) -> Iterator[str]:
    """Warns where outputs look like a softmax's."""
    logits = logits[np.isfinite(logits).all(-1)]
    sums = np.abs(logits.sum(-1) - 1)
    if logits.max() < 1 + 1e-5 and logits.min() > -1e-5 and (sums < 1e-5).all():
        yield "logits_fn seems to return probabilities: losses of logits make the attacks weak on them"


def nothing_correct(logits: np.ndarray, y: np.ndarray) -> Iterator[str]:
    """Warns where there is nothing to attack."""
    if not (logits.argmax(-1) == y).any():
        yield (
            f"clean accuracy is 0: none of the {len(y)} images is classified as y says; are the labels "
            "those of these images, the classes in the same order, the pixels scaled once?"
        )


def about_network(
    logits_fn: Callable,
    model: Model,
    forward: Forward,
    x: np.ndarray,
    y: np.ndarray,
    logits: np.ndarray,
) -> Iterator[str]:
    """Warns of what can be seen before any attack; `logits` are those of the clean images."""
    if model.randomized:
        yield from interaction_of_random(model, forward, x)
    else:
        impure = list(impurity(logits_fn, x.shape[1:]))
        yield from impure
        # What is frozen anew in each program differs between their batch sizes.
        if not impure:
            yield from frozen_draws(model)
            yield from interaction(model, forward, x, logits)
    yield from gradients_inside(model)
    yield from probabilities(logits)
    yield from nothing_correct(logits, y)


def disagreement(robust: np.ndarray, correct: np.ndarray, given_up: list[int]) -> Iterator[str]:
    """Warns where x_adv, evaluated once more, is classified otherwise than the verdicts were."""
    differs = robust != correct
    differs[given_up] = False
    if differs.any():
        first = int(np.flatnonzero(differs)[0])
        yield (
            f"{differs.sum()} images of x_adv are classified otherwise when evaluated once more, the first "
            f"is number {first}: logits_fn does not give an image the same logits in every call or batch"
        )


def fitting(
    attacks: Sequence[Attack], num_classes: int, chosen: bool
) -> tuple[list[Attack], list[str]]:
    """The attacks that so many classes allow, and warnings about the others.

    That a version, or a default, has more targets than there are classes means: all of them. It is worth a
    warning where the caller has chosen their number.
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


def not_finite(what: str, images: Sequence[int]) -> Iterator[str]:
    """Warns of images for which logits or gradients are no numbers."""
    if len(images):
        numbers = ", ".join(map(str, images[:10])) + (", ..." if len(images) > 10 else "")
        many = f"{len(images)} image{'s' if len(images) > 1 else ''}"
        count = "they count" if len(images) > 1 else "it counts"
        yield (
            f"logits, losses or gradients are NaN or infinite for {many} {what} (number {numbers}): "
            f"{count} as not robust"
        )


def zero_gradients(attack: Attack, count: int) -> Iterator[str]:
    """Warns of searches that had no gradient; that of the cross-entropy vanishes by rounding alone."""
    if count and not isinstance(attack, ApgdCE):
        yield (
            f"{attack.name} met {count} starting points with zero gradients: attacks by gradients may be "
            "unreliable"
        )


def gradient_masking(
    robust_after: dict[str, np.ndarray], individual: bool = False
) -> Iterator[str]:
    """Warns where Square breaks several images, and more than 0.2%, that the attacks before it left.

    Those after it do not count: in `plus` it is the fourth of six. Of attacks that ran alone
    (`individual`), all but Square count together.
    """
    names = list(robust_after)  # in the order in which they ran, the clean images first
    if "square" not in names[2:] and not (individual and names[1:2] == ["square"] and names[2:]):
        return
    before = robust_after[names[names.index("square") - 1]]
    if individual:
        others = [robust for name, robust in robust_after.items() if name != "square"]
        before = np.logical_and.reduce(others)
    broken = int((before & ~robust_after["square"]).sum())
    if broken >= _SEVERAL and broken > 0.002 * len(before):
        yield (
            f"Square broke {broken} of the {before.sum()} images that the attacks by gradients before it "
            "left: gradients may be masked; try Square(queries=20_000) and an adaptive attack, whose "
            "gradients go around what masks them"
        )
