"""APGD on linear networks, where the strongest perturbation is known; test_official.py covers parity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rwp_jax.attacks.autoattack.apgd import apgd, checkpoints, random_start
from rwp_jax.attacks.autoattack.margins import dlr, targeted_dlr
from rwp_jax.losses import cross_entropy

RNG = np.random.default_rng(0)
LOGITS = RNG.standard_normal((6, 5))
Y = np.array([0, 1, 2, 3, 4, int(LOGITS[5].argmax())])
EPSILON = {"l_inf": 0.015, "l_2": 0.1}
NORMS = {
    "l_inf": lambda delta: np.abs(delta).max((1, 2, 3)),
    "l_2": lambda delta: np.sqrt((delta**2).sum((1, 2, 3))),
}


def test_the_checkpoints_of_100_iterations_are_the_papers():
    ends, gaps = checkpoints(100)
    assert (np.flatnonzero(ends) + 1).tolist() == [22, 41, 57, 70, 80, 87, 93, 99]
    assert gaps[ends].tolist() == [22, 19, 16, 13, 10, 7, 6, 6]
    assert checkpoints(3)[0].all(), "few iterations: gaps of one"


def test_dlr():
    for z, y, ours in zip(LOGITS, Y, dlr(jnp.asarray(LOGITS), Y), strict=True):
        ranked = np.sort(z)[::-1]
        rival = np.delete(z, y).max()
        np.testing.assert_allclose(ours, -(z[y] - rival) / (ranked[0] - ranked[2]), rtol=1e-9)


def test_targeted_dlr():
    targets = (Y + 1) % 5
    ours = targeted_dlr(jnp.asarray(LOGITS), Y, targets)
    for z, y, t, value in zip(LOGITS, Y, targets, ours, strict=True):
        ranked = np.sort(z)[::-1]
        spread = ranked[0] - (ranked[2] + ranked[3]) / 2
        np.testing.assert_allclose(value, -(z[y] - z[t]) / spread, rtol=1e-9)


def score(x, weights):
    """Returns scores [B], whose sign is the side of a plane through the middle of the box."""
    return ((x - 0.5) * weights).sum((1, 2, 3))


def plane(weights):
    """Returns a network with two classes, separated by the plane."""
    return lambda images: jnp.stack([jnp.zeros(len(images)), score(images, weights)], -1)


@pytest.fixture(scope="module", params=["l_inf", "l_2"])
def attacked(request):
    """Attacks images, some close to the plane between classes: (norm, weights, x, y, start, result)."""
    norm = request.param
    weights = RNG.standard_normal((4, 4, 1))
    x = RNG.uniform(0.3, 0.7, (24, 4, 4, 1))
    logits_fn = plane(weights)
    y = np.asarray(jnp.argmax(logits_fn(x), -1))
    start = random_start(
        jax.random.split(jax.random.key(0), len(x)), jnp.asarray(x), norm, EPSILON[norm]
    )
    loss = lambda logits: cross_entropy(logits, y)
    attack = lambda: apgd(logits_fn, loss, x, y, start, norm=norm, epsilon=EPSILON[norm])
    return norm, weights, x, y, start, jax.jit(attack)()


def test_starts_lie_on_the_surface(attacked):
    norm, _, x, _, start, _ = attacked
    np.testing.assert_allclose(NORMS[norm](start - x), EPSILON[norm], rtol=1e-9)


def test_finds_the_strongest_perturbation(attacked):
    norm, weights, x, y, _, result = attacked
    reach = EPSILON[norm] * (np.abs(weights).sum() if norm == "l_inf" else np.linalg.norm(weights))
    worst = (
        score(x, weights) - np.where(y == 1, 1, -1) * reach
    )  # stays inside the box, so no clipping applies
    expected = np.log1p(np.exp(np.where(y == 1, -worst, worst)))
    np.testing.assert_allclose(result.loss_best, expected, rtol=1e-6)
    robust = np.where(y == 1, worst > 0, worst <= 0)
    np.testing.assert_array_equal(result.robust, robust)
    assert 0 < robust.sum() < 24, "the case must have both"


def test_what_is_returned_is_inside_and_misclassified(attacked):
    norm, weights, x, y, _, result = attacked
    for images in (result.x_adv, result.x_best):
        assert (NORMS[norm](np.asarray(images) - x) <= EPSILON[norm] * (1 + 1e-12)).all()
        assert (images >= 0).all() and (images <= 1).all()
    predicted = (score(np.asarray(result.x_adv), weights) > 0).astype(int)
    np.testing.assert_array_equal(predicted != y, ~np.asarray(result.robust))


def test_the_box_holds(attacked):
    """Images at the edges of the box: every pixel stays in [0, 1]."""
    norm, weights, *_ = attacked
    x = RNG.integers(0, 2, (8, 4, 4, 1)).astype(float)
    logits_fn = plane(weights)
    y = np.asarray(jnp.argmax(logits_fn(x), -1))
    start = random_start(
        jax.random.split(jax.random.key(1), len(x)), jnp.asarray(x), norm, EPSILON[norm]
    )
    margin = lambda logits: jnp.where(y == 1, -1, 1) * (logits[:, 1] - logits[:, 0])
    settings = {"norm": norm, "epsilon": EPSILON[norm], "steps": 10}
    result = jax.jit(lambda: apgd(logits_fn, margin, x, y, start, **settings))()
    for images in (start, result.x_best):
        assert (images >= 0).all() and (images <= 1).all()


def test_unknown_norm():
    with pytest.raises(ValueError, match="norm='L0' must be l_inf, l_2 or l_1"):
        random_start(jax.random.split(jax.random.key(0), 1), jnp.zeros((1, 4, 4, 1)), "L0", 0.1)
