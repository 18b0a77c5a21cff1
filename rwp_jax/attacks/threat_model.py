"""What an attacker may do: perturbations of norm at most epsilon that keep pixels in [0, 1]."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from rwp_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class ThreatModel:
    """A ball of radius epsilon around each image, in units of pixels in [0, 1].

    Images x and perturbations delta are [B, H, W, C]. The three operations are those of the authors'
    scripts, constants included.

    Attributes:
      norm: `l_inf` or `l_2`.
      epsilon: radius of the ball.
      sample: (keys [B], x) -> random delta inside the ball and the box.
      step: (delta, gradient, step_size) -> delta after a step of steepest ascent, not projected.
      project: (delta, x) -> delta inside the ball, then x + delta inside the box [0, 1].
    """

    norm: str
    epsilon: float
    sample: Callable
    step: Callable
    project: Callable


def _norms(delta):
    """L_2 norm of each example, [B, 1, 1, 1]."""
    return jnp.sqrt(jnp.sum(jnp.square(delta), (1, 2, 3), keepdims=True))


def _into_box(delta, x):
    return jnp.clip(delta, 0 - x, 1 - x)


def l_inf(epsilon: float) -> ThreatModel:
    """Every pixel and channel moves by at most epsilon; uniform start, sign steps."""

    def sample(keys, x):
        draw = lambda key: jax.random.uniform(key, x.shape[1:], x.dtype, -epsilon, epsilon)
        return _into_box(jax.vmap(draw)(keys), x)

    def step(delta, gradient, step_size):
        return delta + step_size * jnp.sign(gradient)

    def project(delta, x):
        return _into_box(jnp.clip(delta, -epsilon, epsilon), x)

    return ThreatModel("l_inf", epsilon, sample, step, project)


def l_2(epsilon: float) -> ThreatModel:
    """Euclidean norm at most epsilon; start of uniform radius along a Gaussian direction."""

    def sample(keys, x):
        def draw(key):
            direction, radius = jax.random.split(key)
            return (
                jax.random.normal(direction, x.shape[1:], x.dtype),
                jax.random.uniform(radius, (1, 1, 1), x.dtype),
            )

        direction, radius = jax.vmap(draw)(keys)
        return _into_box(direction * (radius * epsilon / _norms(direction)), x)

    def step(delta, gradient, step_size):
        return delta + step_size * gradient / (_norms(gradient) + 1e-10)

    def project(delta, x):
        norms = _norms(delta)  # torch.renorm divides by norm + 1e-7
        return _into_box(jnp.where(norms > epsilon, delta * (epsilon / (norms + 1e-7)), delta), x)

    return ThreatModel("l_2", epsilon, sample, step, project)


_THREAT_MODELS = {"l_inf": l_inf, "l_2": l_2}


def make_threat_model(norm: str, epsilon: float) -> ThreatModel:
    """Returns the threat model; raises InputError for an unknown norm or an epsilon outside its range."""
    if norm not in _THREAT_MODELS:
        raise InputError(f"config.threat.norm={norm!r} must be one of {', '.join(_THREAT_MODELS)}")
    # Beyond 1 the L_inf ball holds every image; the same for L_2 is a matter of the image's size.
    if not 0 <= epsilon < float("inf") or (norm == "l_inf" and epsilon > 1):
        accepted = "[0, 1]" if norm == "l_inf" else "[0, inf)"
        raise InputError(
            f"config.threat.epsilon={epsilon} must be in {accepted} (pixels are in [0, 1]) for {norm}"
        )
    return _THREAT_MODELS[norm](epsilon)
