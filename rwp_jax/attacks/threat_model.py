"""Threat models: perturbations of norm at most epsilon that keep pixels in [0, 1]."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from rwp_jax.errors import check_choice, check_number
from rwp_jax.names import norm_name


@dataclasses.dataclass(frozen=True)
class ThreatModel:
    """A ball of radius epsilon around each image, in units of pixels in [0, 1].

    Images x and perturbations delta are [B, H, W, C]. The three operations follow the authors' scripts,
    including constants.

    Attributes:
      norm: `l_inf` or `l_2`.
      epsilon: radius of the ball.
      sample: (keys [B], x) -> random delta from which an attack starts.
      step: (delta, gradient, step_size) -> delta after a step of steepest ascent, before projection.
      project: (delta, x) -> delta projected into the ball, then so that x + delta is in the box [0, 1].
    """

    norm: str
    epsilon: float
    sample: Callable
    step: Callable
    project: Callable


def l_2_norms(delta):
    """L_2 norm [B, 1, 1, 1] of each example of delta [B, H, W, C]."""
    return jnp.sqrt(jnp.sum(jnp.square(delta), (1, 2, 3), keepdims=True))


def _into_box(delta, x):
    return jnp.clip(delta, 0 - x, 1 - x)


def _into_ball(delta, epsilon):
    """Scales perturbations longer than epsilon down to it, as torch.renorm does, including its 1e-7."""
    norms = l_2_norms(delta)
    return jnp.where(norms > epsilon, delta * (epsilon / (norms + 1e-7)), delta)


def l_inf(epsilon: float) -> ThreatModel:
    """L_inf ball: each channel of a pixel changes by at most epsilon; uniform start, sign steps."""

    def sample(keys, x):
        draw = lambda key: jax.random.uniform(key, x.shape[1:], x.dtype, -epsilon, epsilon)
        return _into_box(jax.vmap(draw)(keys), x)

    def step(delta, gradient, step_size):
        return delta + step_size * jnp.sign(gradient)

    def project(delta, x):
        return _into_box(jnp.clip(delta, -epsilon, epsilon), x)

    return ThreatModel("l_inf", epsilon, sample, step, project)


def l_2(epsilon: float) -> ThreatModel:
    """L_2 ball: Euclidean norm at most epsilon; start at a uniform radius in a Gaussian direction."""

    def sample(keys, x):
        def draw(key):
            direction, radius = jax.random.split(key)
            return (
                jax.random.normal(direction, x.shape[1:], x.dtype),
                jax.random.uniform(radius, (1, 1, 1), x.dtype),
            )

        direction, radius = jax.vmap(draw)(keys)
        return _into_box(direction * (radius * epsilon / l_2_norms(direction)), x)

    def step(delta, gradient, step_size):
        return delta + step_size * gradient / (l_2_norms(gradient) + 1e-10)

    def project(delta, x):
        return _into_box(_into_ball(delta, epsilon), x)

    return ThreatModel("l_2", epsilon, sample, step, project)


def _near(keys, x):
    """TRADES' start: 0.001 N(0, 1) for each channel of a pixel, not projected into the box or the ball."""
    draw = lambda key: jax.random.normal(key, x.shape[1:], x.dtype)
    return 0.001 * jax.vmap(draw)(keys)


def trades_l_inf(epsilon: float) -> ThreatModel:
    """L_inf as in the TRADES script: starts from a point near x."""
    return dataclasses.replace(l_inf(epsilon), sample=_near)


def trades_l_2(epsilon: float) -> ThreatModel:
    """L_2 as in the TRADES script: starts near x and projects into the box before the ball.

    A zero gradient leaves delta unchanged; the script would divide by zero.
    """

    def step(delta, gradient, step_size):
        norms = l_2_norms(gradient)
        return delta + step_size * gradient / jnp.where(norms > 0, norms, 1)

    def project(delta, x):
        return _into_ball(_into_box(delta, x), epsilon)

    return ThreatModel("l_2", epsilon, _near, step, project)


_THREAT_MODELS = {
    ("l_inf", "madry"): l_inf,
    ("l_2", "madry"): l_2,
    ("l_inf", "trades"): trades_l_inf,
    ("l_2", "trades"): trades_l_2,
}
NORMS, VARIANTS = ("l_inf", "l_2"), ("madry", "trades")


def make_threat_model(norm: str, epsilon: float, variant: str = "madry") -> ThreatModel:
    """Returns a threat model.

    Args:
      norm: `l_inf` or `l_2`, also in other spellings such as `Linf`.
      epsilon: radius; in [0, 1) for L_inf, in [0, 1000] for L_2; not traced. Attacks and training also
        require an L_2 radius below the largest distance between two images of the given shape.
      variant: scripts that start and projection follow, `madry` (uniform start; the AT scripts and every
        evaluation) or `trades` (TRADES and RST in training).

    Raises:
      InputError: for an unknown norm or variant or an epsilon outside its range.
    """
    norm = norm_name("norm", norm, NORMS)
    check_choice("variant", variant, VARIANTS)
    # An L_inf ball of radius 1 contains every image; in L_2 that depends on the image's size.
    if norm == "l_inf":
        accepted, fits = "in [0, 1)", lambda radius: 0 <= radius < 1
    else:
        accepted, fits = "in [0, 1000]", lambda radius: 0 <= radius <= 1000
    accepted = f"{accepted} (pixels are in [0, 1]) for {norm}"
    epsilon = check_number("epsilon", epsilon, accepted, fits)
    return ball(norm, epsilon, variant)


def ball(norm: str, epsilon, variant: str) -> ThreatModel:
    """`make_threat_model` for arguments that are already checked; epsilon may be traced."""
    return _THREAT_MODELS[norm, variant](epsilon)
