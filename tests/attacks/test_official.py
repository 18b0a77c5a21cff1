"""APGD, FAB and Square in L_inf and L_2 against recordings of the official code on a small network."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rwp_jax.attacks.autoattack import Square, autoattack
from rwp_jax.attacks.autoattack.apgd import apgd
from rwp_jax.attacks.autoattack.fab import fab, nearest_boundary, targeted_boundary
from rwp_jax.attacks.autoattack.margins import dlr, targeted_dlr
from rwp_jax.losses import cross_entropy
from rwp_jax.names import spelled

OFFICIAL = dict(np.load(pathlib.Path(__file__).parents[1] / "fixtures/autoattack/official.npz"))
X = jnp.asarray(OFFICIAL["pixels"] / 255)
Y, TARGET = jnp.asarray(OFFICIAL["y"]), jnp.asarray(OFFICIAL["target"])
LOSSES = {
    "ce": lambda logits, _=None: cross_entropy(logits, Y),
    "dlr": lambda logits, _=None: dlr(logits, Y),
    "t2": lambda logits, _=None: targeted_dlr(logits, Y, TARGET),
}


def logits_fn(images):
    flat = images.reshape(len(images), -1) - 0.5
    return 0.3 * (jax.nn.relu(flat @ OFFICIAL["first"]) @ OFFICIAL["second"])


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_apgd(norm, loss):
    epsilon = float(OFFICIAL[f"{norm}_epsilon"])
    attack = functools.partial(apgd, logits_fn, LOSSES[loss], norm=spelled(norm), epsilon=epsilon)
    result = jax.jit(attack)(X, Y, jnp.asarray(OFFICIAL[f"{norm}_start"]))
    recorded = lambda what: OFFICIAL[f"{norm}_{loss}_{what}"]
    np.testing.assert_array_equal(result.robust, recorded("robust"))
    np.testing.assert_allclose(result.loss_best, recorded("loss_best"), rtol=1e-9)
    np.testing.assert_allclose(result.x_best[:2], recorded("x_best"), atol=1e-9)


@pytest.mark.parametrize("name", ["fab_t2", "fab"])
@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_fab(norm, name):
    boundary = (
        targeted_boundary(logits_fn, Y, TARGET)
        if name == "fab_t2"
        else nearest_boundary(logits_fn, Y, spelled(norm))
    )
    result = jax.jit(functools.partial(fab, logits_fn, boundary, norm=spelled(norm)))(X, Y)
    np.testing.assert_allclose(result.distance, OFFICIAL[f"{norm}_{name}_distance"], rtol=1e-6)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_square(norm):
    """Draws differ from the official code's; break counts agree within three standard errors."""
    seeds, queries = int(OFFICIAL["square_seeds"]), int(OFFICIAL["square_queries"])
    x, y = np.tile(np.asarray(X, np.float32), (seeds, 1, 1, 1)), np.tile(OFFICIAL["y"], seeds)
    epsilon = float(OFFICIAL[f"{norm}_square_epsilon"])
    attack = Square(queries=queries)
    result = autoattack(logits_fn, x, y, norm, epsilon, "custom", attacks=attack, batch_size=len(x))
    broken, recorded = (~result.robust).reshape(seeds, -1).sum(0), OFFICIAL[f"{norm}_square_broken"]
    share = (broken + recorded) / (2 * seeds)
    error = np.sqrt(2 * seeds * share * (1 - share))
    assert ((recorded > 0) & (recorded < seeds)).any(), "one image at least is in between"
    assert (np.abs(broken - recorded) <= 3 * error).all(), (broken, recorded)
