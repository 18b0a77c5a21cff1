"""The weight-loss landscape: adversarial loss over the distance from the weights.

It is measured along random directions whose filters have the norms of the network's filters (Li et al.,
2018, arXiv:1712.09913) and along the directions in which AWP and RWP perturb. The images are attacked anew
at every point (Wu et al., 2020, arXiv:2004.05884, Section 3).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rwp_jax.explain.probe import Probe
from rwp_jax.training.objective import own_loss
from rwp_jax.training.weight_ascent import perturb_and_differentiate
from rwp_jax.training.weight_perturbation import from_settings, is_perturbed

RANDOM_DIRECTIONS = 5
RANDOM_DISTANCES = np.linspace(-1, 1, 17)
ADVERSARIAL_STEPS = 9
GAMMAS_SHOWN = 4  # extent along AWP's and RWP's directions, in multiples of gamma
DEFAULT_GAMMA = 0.01  # for runs without weight perturbation


class Slice(NamedTuple):
    """Losses along directions of one kind.

    Attributes:
      distances: [T], ||d|| / ||w||.
      losses: [R, T], mean loss over the images along each of R directions.
    """

    distances: np.ndarray
    losses: np.ndarray


def random_direction(key, params):
    """Returns normal noise scaled to the norm of each filter (output channel) of w; 0 if not perturbed."""

    def like(key, w):
        if not is_perturbed(w):
            return jnp.zeros_like(w)
        noise = jax.random.normal(key, w.shape, w.dtype)
        norm = lambda tensor: jnp.linalg.norm(tensor.reshape(-1, w.shape[-1]), axis=0)
        return noise * (norm(w) / (norm(noise) + 1e-10))

    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    return jax.tree.unflatten(structure, [like(k, w) for k, w in zip(keys, leaves, strict=True)])


def adversarial_direction(probe: Probe, name: str) -> Any | None:
    """Returns v / gamma of `awp` or `rwp` on the probe's images, None if no gate is open.

    gamma, K2 and c_min are those of the run's config, even if the run has no weight perturbation.
    """
    settings = probe.config.weight_perturbation.to_dict()
    del settings["start_epoch"]
    settings |= {"name": name, "gamma": gamma_of(probe), "lsc_low": 0.0, "lsc_high": float("inf")}
    perturbation = from_settings(**settings)

    def perturb(params):
        x_adv = probe.attacked(params)
        found = perturb_and_differentiate(
            lambda w: probe.per_example(w, x_adv), params, perturbation, gate_loss=own_loss
        )
        return found.v, found.steps

    v, steps = jax.jit(perturb)(probe.params)
    return jax.tree.map(lambda d: d / gamma_of(probe), v) if steps > 0 else None


def gamma_of(probe: Probe) -> float:
    return probe.config.weight_perturbation.gamma or DEFAULT_GAMMA


def trained_gamma(probe: Probe) -> float | None:
    """Returns gamma of the run's own weight perturbation, None if it has none."""
    perturbation = probe.config.weight_perturbation
    return None if perturbation.name == "none" else perturbation.gamma or None


def landscape(probe: Probe, say: Callable[[str], None] = lambda _: None) -> dict[str, Slice]:
    """Computes losses along random directions and along the directions of AWP and RWP.

    Args:
      probe: see `probe.Probe`.
      say: called with a description of each part before it is computed.

    Returns:
      Slices `random`, `awp` and, if the loss of any example is below c_min, `rwp`.
    """

    def along(directions: Sequence, distances: np.ndarray) -> Slice:
        at = lambda direction, t: float(jnp.mean(probe.losses(probe.params, direction, t)))
        return Slice(distances, np.array([[at(d, t) for t in distances] for d in directions]))

    keys = jax.random.split(jax.random.key(0), RANDOM_DIRECTIONS)
    with jax.default_matmul_precision("highest"):
        say(f"{RANDOM_DIRECTIONS} random directions")
        directions = [random_direction(key, probe.params) for key in keys]
        slices = {"random": along(directions, RANDOM_DISTANCES)}
        near = np.linspace(0, GAMMAS_SHOWN * gamma_of(probe), ADVERSARIAL_STEPS)
        for name in ("awp", "rwp"):
            say(f"the direction of {name.upper()}")
            direction = adversarial_direction(probe, name)
            if direction is not None:
                slices[name] = along([direction], near)
    return slices
