"""How far each image is from its nearest misclassified one, as attacks find it."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from rwp_jax.attacks.autoattack import checks, layouts, packing
from rwp_jax.attacks.autoattack.backward import with_backward
from rwp_jax.attacks.autoattack.fab import fab, nearest_boundary, targeted_boundary
from rwp_jax.attacks.autoattack.fmn import fmn, margins_of
from rwp_jax.attacks.autoattack.forward import Forward
from rwp_jax.attacks.autoattack.model import make_model
from rwp_jax.attacks.autoattack.suite import check_norm
from rwp_jax.distributed import devices
from rwp_jax.errors import InputError, check_choice, check_integer
from rwp_jax.models.precision import matmul_precision

ATTACKS = ("fmn", "fab", "fab-t")


class MinimumNormResult(NamedTuple):
    """What was found.

    Attributes:
      x_adv: float32, of the shape of x; the closest misclassified image found, the clean one where it is
        misclassified itself or none was found.
      distance: [N] float64, of x_adv from x; 0 where the clean image is misclassified, infinity where
        nothing was found.
    """

    x_adv: np.ndarray
    distance: np.ndarray

    def robust_accuracy(self, radii) -> np.ndarray:
        """The share of images that are robust, as far as was found, at each radius [R]."""
        return (self.distance > np.asarray(radii, float)[:, None]).mean(-1)


def minimum_norm(
    logits_fn: Callable,
    x,
    y,
    norm: str = "Linf",
    attacks: str | Sequence[str] = ("fmn", "fab-t"),
    *,
    steps: int = 100,
    targets: int = 9,
    batch_size: int | None = None,
    precision: str = "default",
    layout: str = "NHWC",
    gradient_fn: Callable | None = None,
) -> MinimumNormResult:
    """Minimises the distance at which each image is misclassified, whatever a threat model allows.

    Unlike `autoattack`, which stops at the first misclassified image inside a ball, each attack uses all
    its iterations. Distances are upper bounds.

    Args:
      logits_fn: images float32 [B, H, W, C] in [0, 1] -> logits [B, classes], see `autoattack`.
      x: images [N, H, W, C], floating point in [0, 1].
      y: labels [N], integers.
      norm: `Linf`, `L2` or `L1`.
      attacks: of `fmn` (Pintor et al., 2021), `fab` at the nearest boundary and `fab-t` at those of target
        classes (Croce and Hein, 2020); the closest image of all counts.
      steps: of each attack, at least 1.
      targets: of `fab-t`, the classes of the 2nd, 3rd, ... largest clean logit.
      batch_size: images at once, over all devices of this host; default as `autoattack`.
      precision: of matrix products within the attacks; verdicts have the highest.
      layout: of images, `NHWC` or `NCHW`.
      gradient_fn: see `autoattack`.

    Raises:
      InputError: for arguments that are not so, before anything is attacked.
    """
    check_norm(norm)
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
    model = make_model(arrange.network(network), x.shape[1:], False)
    forward = Forward(model, jax.random.key(0), packing.batch_size_for(len(x), batch_size))
    logits = forward(x)
    checks.check_clean_logits(logits, y)

    correct = logits.argmax(-1) == y
    best, distance = x.copy(), np.where(correct, np.inf, 0)
    image = np.flatnonzero(correct)
    ranked = np.argsort(-logits[image], -1, kind="stable").astype(np.int32)
    for name in chosen:
        columns = ranked[:, 1 : 1 + targets].T if name == "fab-t" else ranked[:, :1].T
        search = functools.partial(_search, name, model, norm, steps)
        mapped = devices.over_examples(search, (False, True, True, True))
        for target in columns:
            found = _in_batches(mapped, model, x[image], y[image], target, forward.size, precision)
            _keep_closer(forward, x, y, norm, image, found, best, distance)
    return MinimumNormResult(arrange.back(best), distance)


def _search(name: str, model, norm: str, steps: int, weights, x, y, target):
    """The closest images that an attack finds, on one device."""
    logits_fn = lambda points: model.apply(weights, points, jax.random.key(0))
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
    """Runs `_search` on batches of `size`, the last one filled up with copies."""
    found = [x[:0]]
    for i in range(0, len(x), size):
        part = np.arange(i, min(i + size, len(x)))
        padded = np.concatenate([part, np.repeat(part[:1], size - len(part))])
        with matmul_precision(precision):
            images = mapped(model.weights, x[padded], y[padded], target[padded])
        found.append(np.asarray(images)[: len(part)])
    return np.concatenate(found)


def _keep_closer(forward, x, y, norm, image, found, best, distance) -> None:
    """Updates best images and distances where a fresh forward confirms that one is misclassified."""
    if not len(image):
        return
    found = np.where(np.isfinite(found), found, x[image])
    logits = forward(found)
    wrong = (logits.argmax(-1) != y[image]) | ~np.isfinite(logits).all(-1)
    delta = (found.astype(np.float64) - x[image]).reshape(len(image), -1)
    order = {"Linf": np.inf, "L2": 2, "L1": 1}[norm]
    size = np.linalg.norm(delta, order, axis=1)
    closer = wrong & (size < distance[image])
    best[image[closer]], distance[image[closer]] = found[closer], size[closer]
