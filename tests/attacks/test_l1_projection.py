"""The L1 projections against bisection and sorting."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rwp_jax.attacks.autoattack.ball import check_inside, into_ball
from rwp_jax.attacks.autoattack.l1_projection import l1_correction
from rwp_jax.attacks.autoattack.plane_projection import project_onto_plane
from rwp_jax.attacks.autoattack.thresholds import ranked, smallest

RNG = np.random.default_rng(0)


def by_halving(x, delta, epsilon):
    """Projects one perturbation by 200 bisection steps on the threshold."""
    room = np.where(delta > 0, 1 - x, x)
    kept = lambda t: np.clip(np.abs(delta) - t, 0, room)
    low, high = 0.0, np.abs(delta).max()
    if kept(0).sum() > epsilon:
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if kept(middle).sum() > epsilon else (low, middle)
    else:
        high = 0.0
    return np.sign(delta) * kept(high)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 2, 1), (5, 3, 2)])
@pytest.mark.parametrize("epsilon", [0.0, 1e-3, 0.4, 3.0, 1e3])
def test_the_projection_is_exact(shape, epsilon):
    x = RNG.uniform(0, 1, (40, *shape))
    x[:10] = RNG.integers(0, 2, (10, *shape))  # at the faces of the box
    delta = RNG.standard_normal((40, *shape)) * RNG.choice([0.01, 0.3, 3], (40, 1, 1, 1))
    delta[::7] = 0
    delta[3::7] = 0.25  # ties
    expected = np.stack([by_halving(*case, epsilon) for case in zip(x, delta, strict=True)])
    correction = l1_correction(jnp.asarray(x), jnp.asarray(delta), epsilon)
    point = np.asarray(x + delta + correction)
    np.testing.assert_allclose(point - x, expected, atol=1e-12)
    assert (np.abs(delta + np.asarray(correction)).sum((1, 2, 3)) <= epsilon * (1 + 1e-12)).all()
    assert (point >= -1e-15).all() and (point <= 1 + 1e-15).all()


def test_each_image_may_have_a_radius_of_its_own():
    x, delta = jnp.full((3, 2, 2, 1), 0.5), jnp.full((3, 2, 2, 1), 0.4)
    radii = jnp.array([0.4, 1.0, 9.0])
    moved = jnp.abs(delta + l1_correction(x, delta, radii)).sum((1, 2, 3))
    np.testing.assert_allclose(moved, [0.4, 1.0, 1.6], rtol=1e-12)


def test_what_is_no_number_stays_so():
    x, delta = jnp.full((1, 2, 2, 1), 0.5), jnp.full((1, 2, 2, 1), jnp.nan)
    assert jnp.isnan(x + delta + l1_correction(x, delta, 1.0)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ranked_is_what_sorting_finds(dtype):
    values = np.abs(RNG.standard_normal((20, 9))).astype(dtype)
    values[::3] = RNG.integers(0, 3, (7, 9))  # ties, and zeros
    rank = RNG.integers(0, 9, 20)
    ours = ranked(jnp.asarray(values), jnp.asarray(rank))
    assert ours.dtype == dtype
    np.testing.assert_array_equal(ours, np.sort(values, -1)[np.arange(20), rank])


def test_smallest_at_the_ends():
    limits = jnp.array([0.0, 1.5, np.inf])
    found = smallest(lambda t: t >= limits, (3,), jnp.float32)
    np.testing.assert_array_equal(found, [0, 1.5, np.inf])


def by_sorting(x, w, b):
    """Projects one point onto a plane, moving coordinates in order of decreasing |w|."""
    gap, d = b - w @ x, np.zeros_like(x)
    for i in np.argsort(-np.abs(w), kind="stable"):
        end = 1 - x[i] if (w[i] > 0) == (gap > 0) else -x[i]
        if w[i] and abs(w[i] * end) <= abs(gap):
            d[i], gap = end, gap - w[i] * end
        elif w[i]:
            d[i] = gap / w[i]
            break
    return d


@pytest.mark.parametrize("reach", [0.1, 1.0, 3.0, 30.0])
def test_the_projection_onto_a_plane(reach):
    x = RNG.uniform(0, 1, (40, 12))
    x[:, :3] = RNG.integers(0, 2, (40, 3))
    w = RNG.standard_normal((40, 12))
    w[:, 5] = 0
    b = (w * x).sum(1) + reach * RNG.standard_normal(40)
    b[0] = w[0] @ x[0]
    ours = np.asarray(project_onto_plane(jnp.asarray(x), jnp.asarray(w), jnp.asarray(b), "l_1"))
    expected = np.stack([by_sorting(*case) for case in zip(x, w, b, strict=True)])
    np.testing.assert_allclose(ours, expected, atol=1e-12)


def test_ties_reach_the_plane_by_the_shortest_way():
    x, w = jnp.full((1, 4), 0.5), jnp.array([[1.0, -1.0, 1.0, 0.5]])
    b = (w * x).sum(-1) + 1.2
    d = project_onto_plane(x, w, b, "l_1")
    np.testing.assert_allclose((w * (x + d)).sum(-1), b, rtol=1e-12)
    np.testing.assert_allclose(jnp.abs(d).sum(), 1.2, rtol=1e-12)


@pytest.mark.parametrize("epsilon", [1e-4, 0.3, 12.0])
def test_the_image_handed_in_lies_in_the_ball_exactly(epsilon):
    x = RNG.uniform(0, 1, (20, 8, 8, 3)).astype(np.float32)
    x[:5] = RNG.integers(0, 2, (5, 8, 8, 3))
    delta = RNG.standard_normal(x.shape) * (RNG.uniform(size=x.shape) < 0.2)
    correction = jax.jit(l1_correction)(jnp.asarray(x), jnp.asarray(delta, jnp.float32), epsilon)
    found = x + delta.astype(np.float32) + np.asarray(correction)
    image = into_ball(found, x, "l_1", epsilon)
    assert image.dtype == np.float32
    check_inside(image, x, "l_1", epsilon)
    assert (np.abs(image - found) < 1e-5).all()
    far = into_ball(RNG.uniform(-1, 2, x.shape).astype(np.float32), x, "l_1", epsilon)
    check_inside(far, x, "l_1", epsilon)
    with pytest.raises(AssertionError, match="l_1 distance"):
        check_inside(1 - x, x, "l_1", epsilon)
