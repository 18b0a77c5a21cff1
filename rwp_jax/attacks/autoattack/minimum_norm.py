"""Minimum-norm attacks: the distance of each image from the nearest misclassified one found."""

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from rwp_jax.attacks.arguments import check_classes
from rwp_jax.attacks.autoattack import checks, doubts, layouts, packing
from rwp_jax.attacks.autoattack.backward import with_backward
from rwp_jax.attacks.autoattack.ball import sizes
from rwp_jax.attacks.autoattack.fab import fab, nearest_boundary, targeted_boundary
from rwp_jax.attacks.autoattack.fmn import fmn, margins_of
from rwp_jax.attacks.autoattack.forward import Forward
from rwp_jax.attacks.autoattack.interaction import randomness
from rwp_jax.attacks.autoattack.kept import Latest, kept_for
from rwp_jax.attacks.autoattack.model import Model, make_model
from rwp_jax.distributed import devices
from rwp_jax.errors import (
    InputError,
    check_bool,
    check_choice,
    check_function,
    check_integer,
    shown,
)
from rwp_jax.models.precision import matmul_precision
from rwp_jax.names import norm_name

ATTACKS = ("fmn", "fab", "fab-t")


class MinimumNormResult(NamedTuple):
    """Result of `minimum_norm`.

    Attributes:
      x_adv: float32, of the shape of x; the closest misclassified image found, or the clean image if it is
        misclassified itself or none was found.
      distance: [N] float64, distance of x_adv from x; 0 if the clean image is misclassified or logits or
        gradients are non-finite, infinity if no misclassified image was found.
      warnings: messages of the warnings that were issued, as in `autoattack`.
    """

    x_adv: np.ndarray
    distance: np.ndarray
    warnings: list[str]

    def robust_accuracy(self, radii) -> np.ndarray:
        """Returns for which share of images no misclassified image was found within each radius.

        Args:
          radii: number or [R], in the norm of the search.

        Returns:
          float64 [R], in [0, 1].

        Raises:
          InputError: if a radius is negative, not finite or no number.
        """
        try:
            radii = np.atleast_1d(np.asarray(radii, float))
        except (TypeError, ValueError):
            radii = np.array([np.nan])
        if radii.ndim != 1 or not (np.isfinite(radii) & (radii >= 0)).all():
            raise InputError("radii= must be a finite number, at least 0, or several [R]")
        return (self.distance > radii[:, None]).mean(-1)


def minimum_norm(
    logits_fn: Callable,
    x,
    y,
    norm: str = "l_inf",
    attacks: str | Sequence[str] = ("fmn", "fab-t"),
    *,
    steps: int = 100,
    targets: int = 9,
    batch_size: int | None = None,
    precision: str = "default",
    reuse: bool = False,
    layout: str = "NHWC",
    gradient_fn: Callable | None = None,
) -> MinimumNormResult:
    """Minimises the distance at which each image is misclassified, without a given radius.

    Unlike `autoattack`, which stops at the first misclassified image inside a ball, each attack uses all
    its iterations. The distances found are upper bounds.

    Args:
      logits_fn: images float32 [B, H, W, C] in [0, 1] -> logits [B, classes], see `autoattack`.
      x: images [N, H, W, C], floating point in [0, 1].
      y: labels [N], integers.
      norm: `l_inf`, `l_2` or `l_1`.
      attacks: some of `fmn` (Pintor et al., 2021), `fab` at the nearest boundary and `fab-t` at the
        boundaries to target classes (Croce and Hein, 2020); the closest image of all attacks counts.
      steps: number of iterations of each attack, at least 1.
      targets: number of target classes of `fab-t`, those with the 2nd, 3rd, ... largest clean
        logit, at least 1.
      batch_size: images per batch, over all devices of this host; default as for `autoattack`.
      precision: precision of matrix products in the attacks; verdicts use the highest.
      reuse: whether compiled programs also serve other checkpoints of the network, see `autoattack`.
      layout: layout of images, `NHWC` or `NCHW`.
      gradient_fn: function whose derivative replaces that of logits_fn, see `autoattack`.

    Returns:
      `MinimumNormResult`. Warnings are issued as by `autoattack`.

    Raises:
      InputError: if arguments are invalid or the logits of all clean images are non-finite, before any
        attack.
    """
    check_function("logits_fn", logits_fn)
    norm = norm_name("norm", norm)
    if not isinstance(attacks, str | list | tuple):
        raise InputError(f"attacks={shown(attacks)} must be some of {', '.join(ATTACKS)}")
    chosen = [attacks] if isinstance(attacks, str) else list(attacks)
    if not chosen:
        raise InputError(f"attacks= is empty, must have some of {', '.join(ATTACKS)}")
    for name in chosen:
        check_choice("attacks", name, ATTACKS)
    steps, targets = check_integer("steps", steps, 1), check_integer("targets", targets, 1)
    if batch_size is None:
        batch_size = packing.default_batch_size(jax.default_backend(), jax.local_device_count())
    batch_size = check_integer("batch_size", batch_size, 1)
    checks.check_matmul_precision(precision)
    arrange = layouts.Layout(layout)
    x, y = checks.check_images(arrange.images(x), y)
    network = with_backward(logits_fn, gradient_fn, arrange.shape(x.shape[1:]), False)
    model = make_model(
        arrange.network(network), x.shape[1:], False, reuse=check_bool("reuse", reuse)
    )
    forward = Forward(model, jax.random.key(0), packing.batch_size_for(len(x), batch_size))
    check_classes(y, model.num_classes)
    if model.no_gradient:
        raise InputError(f"logits_fn has no gradient with respect to images: {model.no_gradient}")
    logits = forward(x)
    checks.check_clean_logits(logits)
    size = forward.size
    said = [
        *randomness(forward, x[:size], y[:size], "custom", False),
        *doubts.about_network(arrange.network(network), model, forward, x, y, logits),
    ]
    if gradient_fn is not None:
        said += doubts.about_backward(arrange.network(gradient_fn), x, False, size)

    correct = (logits.argmax(-1) == y) & np.isfinite(logits).all(-1)
    best, distance = x.copy(), np.where(correct, np.inf, 0)
    image = np.flatnonzero(correct)
    ranked = np.argsort(-logits[image], -1, kind="stable").astype(np.int32)
    lost: set[int] = set()
    for name in chosen:
        columns = ranked[:, 1 : 1 + targets].T if name == "fab-t" else ranked[:, :1].T
        mapped = _search_on_devices(name, model, norm, steps)
        for target in columns:
            found = _in_batches(mapped, model, x[image], y[image], target, forward.size, precision)
            lost |= _keep_closer(forward, x, y, norm, image, found, best, distance)
    lost |= set(np.flatnonzero(~np.isfinite(logits).all(-1)).tolist())
    given_up = sorted(lost)
    best[given_up], distance[given_up] = x[given_up], 0
    said += doubts.not_finite("in all", given_up)
    said += doubts.nothing_found(distance)
    for message in said:
        warnings.warn(message, doubts.AutoAttackWarning, stacklevel=2)
    return MinimumNormResult(arrange.back(best), distance, said)


def _search_on_devices(name: str, model: Model, norm: str, steps: int) -> devices.Mapped:
    """Returns `_search` sharded over all devices of this host, cached between calls."""

    def make(latest: Latest):
        search = functools.partial(_search, name, latest.apply, norm, steps)
        return devices.over_examples(search, (False, True, True, True))

    return kept_for(model, ("minimum", name, norm, steps), make)


def _search(name: str, apply: Callable, norm: str, steps: int, weights, x, y, target):
    """Returns the closest images that an attack finds, on one device."""
    logits_fn = lambda points: apply(weights, points, jax.random.key(0))
    if name != "fmn":
        boundary = (
            targeted_boundary(logits_fn, y, target)
            if name == "fab-t"
            else nearest_boundary(logits_fn, y, norm)
        )
        return fab(logits_fn, boundary, x, y, norm=norm, steps=steps).x_adv

    def loss_and_gradient(points):
        def total(points):
            margins, fooled = margins_of(logits_fn(points), y)
            return margins.sum(), (margins, fooled)

        gradient, (margins, fooled) = jax.grad(total, has_aux=True)(points)
        return margins, gradient, fooled

    return fmn(loss_and_gradient, x, norm=norm, steps=steps).x_adv


def _in_batches(mapped, model, x, y, target, size: int, precision: str) -> np.ndarray:
    """Runs `_search` on batches of `size`, the last one padded with copies."""
    found = [x[:0]]
    for i in range(0, len(x), size):
        part = np.arange(i, min(i + size, len(x)))
        padded = np.concatenate([part, np.repeat(part[:1], size - len(part))])
        with matmul_precision(precision):
            images = mapped(model.weights, x[padded], y[padded], target[padded])
        found.append(np.asarray(images)[: len(part)])
    return np.concatenate(found)


def _keep_closer(forward, x, y, norm, image, found, best, distance) -> set[int]:
    """Updates best images and distances where a fresh forward pass confirms the misclassification.

    Returns:
      Indices of images for which the search or the forward pass was non-finite.
    """
    if not len(image):
        return set()
    numbers = np.isfinite(found).all((1, 2, 3))
    found = np.where(numbers[:, None, None, None], found, x[image])
    logits = forward(found)
    numbers &= np.isfinite(logits).all(-1)
    wrong = (logits.argmax(-1) != y[image]) & numbers
    size = sizes(found.astype(np.float64) - x[image], norm)
    closer = wrong & (size < distance[image])
    best[image[closer]], distance[image[closer]] = found[closer], size[closer]
    return set(image[~numbers].tolist())
