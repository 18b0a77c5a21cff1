"""AutoAttack in L1 against recordings of the official code on a small network."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from rwp_jax.attacks.autoattack.apgd import apgd
from rwp_jax.attacks.autoattack.apgd_l1 import (
    begin_l1,
    make_apgd_l1,
    perturbed,
    random_start_l1,
    schedule,
)
from rwp_jax.attacks.autoattack.fab import fab, nearest_boundary, targeted_boundary
from rwp_jax.attacks.autoattack.margins import targeted_dlr
from rwp_jax.attacks.autoattack.search import Job
from rwp_jax.losses import cross_entropy

OFFICIAL = dict(np.load(pathlib.Path(__file__).parents[1] / "fixtures/autoattack_l1/official.npz"))
EPSILON = float(OFFICIAL["epsilon"])
# Divided by NumPy: APGD counts entries that differ, even in the last bit.
X = jnp.asarray(OFFICIAL["pixels"] / 255)
Y, TARGET = jnp.asarray(OFFICIAL["y"]), jnp.asarray(OFFICIAL["target"])


def logits_fn(images):
    flat = images.reshape(len(images), -1) - 0.5
    return 0.3 * (jax.nn.relu(flat @ OFFICIAL["first"]) @ OFFICIAL["second"])


LOSSES = {
    "ce": lambda logits, _=None: cross_entropy(logits, Y),
    "t2": lambda logits, _=None: targeted_dlr(logits, Y, TARGET),
}


def start(radius, twice=False):
    """Projects the recorded noise onto the ball of the given radius."""
    return perturbed(jnp.asarray(OFFICIAL["noise"].astype(np.float64)), X, radius, twice=twice)


def assert_official(result, name):
    np.testing.assert_allclose(result.loss_best, OFFICIAL[f"{name}_loss_best"], rtol=1e-9)
    np.testing.assert_array_equal(result.robust, OFFICIAL[f"{name}_robust"])
    np.testing.assert_allclose(result.x_best[:2], OFFICIAL[f"{name}_x_best"], atol=1e-9)


@pytest.mark.parametrize("name", LOSSES)
def test_apgd_is_the_official(name):
    attack = functools.partial(apgd, logits_fn, LOSSES[name], norm="l_1", epsilon=EPSILON)
    result = jax.jit(attack)(X, Y, start(EPSILON))
    assert_official(result, name)
    for images in (result.x_adv, result.x_best):
        assert (jnp.abs(images - X).sum((1, 2, 3)) <= EPSILON * (1 + 1e-12)).all()
        assert (images >= 0).all() and (images <= 1).all()


@pytest.mark.parametrize(
    "name, large_radii", [("ce_own", False), ("ce_radii", True), ("t2_radii", True)]
)
def test_the_search_is_the_official(name, large_radii):
    """The search agrees with the official code at a single radius and through three radii."""
    search = make_apgd_l1(LOSSES[name[:2]], EPSILON, large_radii=large_radii)
    job, factor = Job(X, Y, TARGET, None, None), 3 if large_radii else 1
    bound = lambda images, _: logits_fn(images)

    @jax.jit
    def run(begin):
        step = lambda carry: (search.step(bound, job, carry[0], None), carry[1] + 1)
        running = lambda carry: ~search.outcome(job, carry[0]).ended.all()
        return lax.while_loop(running, step, (begin, 0))

    at = jnp.asarray(OFFICIAL["radii_start"]) if large_radii else start(EPSILON)
    begin = begin_l1(at, X, EPSILON, given=large_radii, factor=factor)
    state, count = run(begin)
    assert count == (103 if large_radii else 101), "iterations and the start of each phase"
    assert_official(state.result, name)
    outcome = search.outcome(job, state)
    np.testing.assert_array_equal(outcome.fooled, ~OFFICIAL[f"{name}_robust"])
    delta = jnp.abs(outcome.x_adv - X).sum((1, 2, 3))
    assert (delta <= EPSILON * (1 + 1e-12)).all()


def test_a_point_of_a_larger_ball_fools_nobody():
    """In the first phases, misclassified iterates lie outside the ball and do not count."""
    search = make_apgd_l1(LOSSES["ce"], EPSILON, steps=10, large_radii=True)
    job = Job(X, Y, TARGET, None, jax.random.split(jax.random.key(0), len(X)))
    step = jax.jit(lambda state: search.step(lambda x, _: logits_fn(x), job, state, None))
    state, sizes = search.init(job), []
    for i in range(13):
        sizes.append(float(jnp.abs(state.x - X).sum((1, 2, 3)).max() / EPSILON))
        state = step(state)
        if i < 8:
            assert not search.outcome(job, state).fooled.any()
            assert not state.result.robust.all()
    np.testing.assert_allclose(np.array(sizes)[[0, 4, 8]], [3, 2, 1], rtol=1e-9)
    assert search.outcome(job, state).fooled.any() and search.outcome(job, state).ended.all()


def test_the_schedule():
    plan = schedule(100, True)
    assert np.flatnonzero(plan.begins).tolist() == [0, 31, 62]
    assert np.flatnonzero(plan.ends).tolist() == [30, 61, 102]
    assert plan.radius[[0, 30, 31, 61, 62, 102]].tolist() == [3, 3, 2, 2, 1, 1]
    assert plan.final == 62
    assert plan.checked.sum() == 100, "so short a phase is checked after every step"
    plain = schedule(100, False)
    assert np.flatnonzero(plain.checked).tolist() == list(range(4, 101, 4))
    assert (plain.final, len(plain.radius)) == (0, 101)
    for steps in (1, 2, 3, 4, 7):
        plan = schedule(steps, True)
        assert len(plan.radius) == steps + 3, "no more steps than asked for"
        assert plan.begins.sum() == plan.ends.sum() == 3


def test_starts_are_the_official():
    """The start for three radii agrees up to the rounding of unchanged entries."""
    ours = start(3 * EPSILON, twice=True)
    np.testing.assert_allclose(ours, OFFICIAL["radii_start"], atol=1e-14)


def test_starts_lie_in_the_ball():
    keys = jax.random.split(jax.random.key(0), len(X))
    delta = np.asarray(random_start_l1(keys, X, EPSILON) - X)
    np.testing.assert_allclose(np.abs(delta).sum((1, 2, 3)), EPSILON, rtol=1e-9)


def test_fab_is_the_official():
    boundaries = {
        "fab_t2": targeted_boundary(logits_fn, Y, TARGET),
        "fab": nearest_boundary(logits_fn, Y, "l_1"),
    }
    for name, boundary in boundaries.items():
        result = jax.jit(functools.partial(fab, logits_fn, boundary, norm="l_1"))(X, Y)
        np.testing.assert_allclose(result.distance, OFFICIAL[f"{name}_distance"], rtol=1e-6)
        delta = jnp.abs(result.x_adv - X).sum((1, 2, 3))
        np.testing.assert_allclose(delta, result.distance, rtol=1e-12)
