"""Projected gradient ascent on the input (Madry et al., 2018, arXiv:1706.06083)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from rwp_jax.attacks import arguments
from rwp_jax.attacks.threat_model import ThreatModel
from rwp_jax.errors import (
    InputError,
    check_function,
    check_integer,
    function_of_the_user,
    renamed,
    shown,
)
from rwp_jax.losses import cross_entropy
from rwp_jax.models.classifier import Classifier

BN_MODES = ("train", "batch", "eval")


def forward_in_mode(classifier: Classifier, params, bn: str) -> Callable:
    """Returns the attack's forward pass (images, batch_stats) -> (logits, batch_stats) in a BN mode.

    `train` normalises by batch statistics and folds them into the running batch_stats; `batch` normalises
    by batch statistics and leaves batch_stats unchanged; `eval` normalises by batch_stats.
    """

    params = classifier.prepare(params)

    def forward(images, batch_stats):
        if bn == "eval":
            return classifier.eval(params, batch_stats, images), batch_stats
        logits, moments = classifier.train(params, images)
        return logits, classifier.fold(batch_stats, moments) if bn == "train" else batch_stats

    return forward


def pgd_steps(
    forward: Callable,
    loss: Callable,
    threat_model: ThreatModel,
    x,
    start,
    batch_stats,
    *,
    step_size: float | jax.Array,
    steps: int | jax.Array,
    global_batch_size: int | None = None,
):
    """Maximises the mean loss over perturbations of x, from a given start, within a training step.

    Only the gradient with respect to the input is computed, so a step costs two forward units.

    Args:
      forward: (images, batch_stats) -> (logits, batch_stats), see `forward_in_mode`.
      loss: logits [B, classes] -> per-example loss [B].
      threat_model: threat model that defines the step and the projection.
      x: clean images [B, H, W, C] in [0, 1].
      start: initial perturbation, of the shape of x, inside the threat model.
      batch_stats: running statistics before the first step.
      step_size: size of a step, in pixels for L_inf, in L_2 norm for L_2.
      steps: number of steps.
      global_batch_size: number of examples over all devices, the divisor of the mean; default B.

    Returns:
      The last perturbation (as in the reference, whatever its loss), and batch_stats.
    """
    weight = 1 / (global_batch_size or len(x))

    def mean_loss(delta, batch_stats):
        logits, batch_stats = forward(x + delta, batch_stats)
        return weight * jnp.sum(loss(logits)), batch_stats

    def step(_, carry):
        delta, batch_stats = carry
        gradient, batch_stats = jax.grad(mean_loss, has_aux=True)(delta, batch_stats)
        delta = threat_model.project(threat_model.step(delta, gradient, step_size), x)
        return delta, batch_stats

    with jax.named_scope("attack"):  # name of the loop in profiles and compiled programs
        return lax.fori_loop(0, steps, step, (start, batch_stats))


def pgd(
    logits_fn: Callable,
    x: jax.typing.ArrayLike,
    y: jax.typing.ArrayLike,
    threat_model: ThreatModel,
    *,
    steps: int | jax.Array,
    step_size: float | jax.Array,
    key: Any = 0,
    loss: Callable = cross_entropy,
) -> jax.Array:
    """Attacks images by PGD: random start, steepest-ascent steps with projection; returns the last iterate.

    May be called within `jax.jit`, where the values of traced arguments are not checked.

    Args:
      logits_fn: images [B, H, W, C] in [0, 1] -> logits [B, classes], independently for each image.
      x: clean images [B, H, W, C], floating-point in [0, 1].
      y: labels [B], integers in [0, classes).
      threat_model: threat model from `make_threat_model`.
      steps: number of steps, at least 0; may be traced.
      step_size: size of a step; may be traced. For L_inf in pixels, in [0, 1); for L_2 in L_2 norm, from 0
        to less than the largest distance between two images, sqrt(H W C).
      key: seed or `jax.random.key` of the random start.
      loss: (logits, y) -> losses [B], which the attack maximises.

    Returns:
      Attacked images, of the shape and dtype of x.

    Raises:
      InputError: if an argument is invalid, or, outside `jax.jit`, if logits or gradients are not finite.
    """
    check_function("logits_fn", logits_fn)
    x, y = arguments.as_arrays(x, y)
    arguments.check_images(x, y)
    arguments.check_classes(y, arguments.check_logits_fn(logits_fn, x))
    if not isinstance(threat_model, ThreatModel):
        raise InputError(f"threat_model={shown(threat_model)} must be made by make_threat_model")
    if not isinstance(threat_model.epsilon, jax.core.Tracer):
        with renamed("epsilon", "threat_model.epsilon"):
            arguments.check_radius("epsilon", threat_model.epsilon, threat_model.norm, x.shape[1:])
    check_function("loss", loss)
    if not isinstance(step_size, jax.core.Tracer):
        step_size = arguments.check_radius("step_size", step_size, threat_model.norm, x.shape[1:])
    else:
        arguments.check_traced("step_size", step_size, "a number", jnp.integer, jnp.floating)
        step_size = step_size.astype(x.dtype)  # a wider dtype would promote the images
    if not isinstance(steps, jax.core.Tracer):
        steps = check_integer("steps", steps, 0)
    else:
        arguments.check_traced("steps", steps, "an integer", jnp.integer)
        steps = steps.astype(jnp.int32)  # lax.fori_loop needs the dtype of its lower bound
    key = arguments.check_key(key)
    with function_of_the_user("loss"):
        losses = jax.eval_shape(lambda: loss(logits_fn(x), y))
    arguments.check_losses("loss", losses, len(x))
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(len(x)))
    start = threat_model.sample(keys, x)
    is_own = loss is not cross_entropy
    blamed, what = ("logits_fn or loss", "values") if is_own else ("logits_fn", "logits")
    with function_of_the_user(blamed):  # which may have no derivative
        delta, _ = pgd_steps(
            lambda images, state: (logits_fn(images), state),
            lambda logits: loss(logits, y),
            threat_model,
            x,
            start,
            (),
            step_size=step_size,
            steps=steps,
        )
    x_adv = x + delta
    if arguments.is_known(x_adv):
        lost = np.flatnonzero(~np.isfinite(np.asarray(x_adv, np.float32)).all((1, 2, 3)))
        if len(lost):
            raise InputError(
                f"{blamed} has NaN or infinite {what} or gradients for {len(lost)} of {len(x)} images, "
                f"the first is number {lost[0]}"
            )
    return x_adv
