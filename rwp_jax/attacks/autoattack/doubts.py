"""Warnings about networks and settings for which AutoAttack's result would mislead."""

from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np

from rwp_jax.attacks.autoattack.equations import differentiates
from rwp_jax.attacks.autoattack.forward import Forward
from rwp_jax.attacks.autoattack.interaction import (
    frozen_draws,
    impurity,
    interaction,
    interaction_of_random,
    unused_key,
)
from rwp_jax.attacks.autoattack.margin_gradient import without_gradient
from rwp_jax.attacks.autoattack.model import Model, make_model
from rwp_jax.attacks.autoattack.settings import ApgdCE, ApgdDLR, ApgdT, Attack, Square
from rwp_jax.errors import InputError

_SEVERAL = 3  # fewest images broken by Square that indicate masked gradients


class AutoAttackWarning(UserWarning):
    """The robust accuracy may be wrong, in most cases too high."""


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


def _about_logits(
    logits_fn: Callable, model: Model, forward: Forward, x: np.ndarray, logits: np.ndarray
) -> Iterator[str]:
    """Yields the warnings about logits that depend on more than the image."""
    impure = list(impurity(logits_fn, x.shape[1:], model.randomized))
    yield from impure
    # Frozen random numbers differ between batch sizes and would be mistaken for interaction.
    if not impure and model.randomized:
        yield from unused_key(forward, x)
        yield from interaction_of_random(model, forward, x)
    elif not impure:
        yield from frozen_draws(model)
        yield from interaction(model, forward, x, logits)


def about_backward(
    gradient_fn: Callable, x: np.ndarray, randomized: bool, size: int
) -> Iterator[str]:
    """Yields the warnings about gradients that depend on more than the image, for BPDA."""
    backward, x = make_model(gradient_fn, x.shape[1:], randomized), x[: 2 * size]
    forward = Forward(backward, jax.random.key(0), size)
    for message in _about_logits(gradient_fn, backward, forward, x, forward(x)):
        message = message.replace("logits_fn", "gradient_fn").replace("verdicts", "gradients")
        yield message if "gradient_fn" in message else f"gradient_fn: {message}"


def about_network(
    logits_fn: Callable,
    model: Model,
    forward: Forward,
    x: np.ndarray,
    y: np.ndarray,
    logits: np.ndarray,
) -> Iterator[str]:
    """Yields the warnings that need no attack; `logits` are those of the clean images."""
    yield from _about_logits(logits_fn, model, forward, x, logits)
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


def nothing_found(distance: np.ndarray) -> Iterator[str]:
    """Warns if a search without a radius found no misclassified image for some images."""
    images = np.flatnonzero(np.isinf(distance))
    if len(images):
        yield (
            f"no misclassified image was found for {len(images)} of {len(distance)} images (the first is "
            f"number {images[0]}): their distance is infinite; are gradients masked?"
        )


def zero_gradients(attack: Attack, count: int) -> Iterator[str]:
    """Warns of searches that began with a zero gradient, except with APGD-CE, see `no_gradient`.

    The gradient of the cross-entropy can vanish by rounding alone.
    """
    if count and not isinstance(attack, ApgdCE):
        yield (
            f"{attack.name} met {count} starting points with zero gradients: gradient-based attacks may be "
            "unreliable"
        )


def no_gradient(
    model: Model, attacks: Sequence[Attack], x: np.ndarray, y: np.ndarray, size: int
) -> Iterator[str]:
    """Warns of clean images whose margin has no gradient, unless an attack tells of such searches."""
    tells = any(isinstance(attack, ApgdDLR | ApgdT) for attack in attacks)
    if model.no_gradient or tells or all(isinstance(attack, Square) for attack in attacks):
        return
    if count := without_gradient(model, x, y, size):
        yield (
            f"the gradient is zero for {count} of {len(x)} correctly classified images: gradient-based "
            "attacks may be unreliable"
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
