"""FAB's projection against bisection, and FAB where the boundary is a plane."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rwp_jax.attacks.autoattack.fab import (
    fab,
    nearest_boundary,
    project_onto_plane,
    targeted_boundary,
)

RNG = np.random.default_rng(0)
NORMS = {"l_inf": lambda d: np.abs(d).max(-1), "l_2": lambda d: np.sqrt((d**2).sum(-1))}


def by_halving(x, w, b, norm):
    """Projects one point onto the plane by 200 bisection steps on the scale."""
    gap = b - w @ x
    direction = np.sign(w) * np.sign(gap) * (1 if norm == "l_inf" else np.abs(w))
    moved = lambda scale: np.clip(x + scale * direction, 0, 1) - x
    low, high = 0.0, 1e6
    if abs(w @ moved(high)) < abs(gap):
        return moved(high)  # the box does not reach the plane
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if abs(w @ moved(middle)) < abs(gap) else (low, middle)
    return moved(high)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("reach", [0.1, 1.0, 3.0, 30.0])
def test_the_projection_is_exact(norm, reach):
    x = RNG.uniform(0, 1, (40, 12))
    x[:, :3] = RNG.integers(0, 2, (40, 3))  # at the faces of the box
    w = RNG.standard_normal((40, 12))
    w[:, 5] = 0
    b = (w * x).sum(1) + reach * RNG.standard_normal(40)
    ours = np.asarray(project_onto_plane(jnp.asarray(x), jnp.asarray(w), jnp.asarray(b), norm))
    expected = np.stack([by_halving(*case, norm) for case in zip(x, w, b, strict=True)])
    np.testing.assert_allclose(ours, expected, atol=1e-9)
    assert ((x + ours >= -1e-15) & (x + ours <= 1 + 1e-15)).all()


def test_a_point_on_the_plane_stays():
    x = jnp.asarray(RNG.uniform(0, 1, (3, 5)))
    w = jnp.ones((3, 5))
    for norm in NORMS:
        d = project_onto_plane(x, w, jnp.sum(x, -1), norm)
        np.testing.assert_allclose(d, 0, atol=1e-12)


@pytest.mark.parametrize("norm", NORMS)
def test_finds_the_nearest_plane(norm):
    """Three classes with linear logits: the distance to each boundary is known."""
    weights = RNG.standard_normal((16, 3))
    x = RNG.uniform(0.4, 0.6, (10, 4, 4, 1))
    logits_fn = lambda images: (images.reshape(len(images), -1) - 0.5) @ weights
    logits = np.asarray(logits_fn(x))
    y = logits.argmax(-1)

    def distances(target):
        normal = weights[:, target].T - weights[:, y].T
        dual = np.abs(normal).sum(1) if norm == "l_inf" else np.sqrt((normal**2).sum(1))
        gap = logits[np.arange(10), y] - logits[np.arange(10), target]
        return np.where(target == y, np.inf, gap / dual)

    # The backward step (beta) and the overshoot (eta) end slightly beyond the plane.
    second = logits.argsort(-1)[:, -2]
    boundary = targeted_boundary(logits_fn, jnp.asarray(y), jnp.asarray(second))
    result = jax.jit(lambda: fab(logits_fn, boundary, jnp.asarray(x), y, norm=norm))()
    expected = distances(second)
    ratio = np.asarray(result.distance) / expected
    assert (ratio > 1).all() and (ratio < 1.06).all()

    boundary = nearest_boundary(logits_fn, jnp.asarray(y), norm)
    result = jax.jit(lambda: fab(logits_fn, boundary, jnp.asarray(x), y, norm=norm))()
    nearest = np.min([distances(np.full(10, c)) for c in range(3)], 0)
    ratio = np.asarray(result.distance) / nearest
    assert (ratio > 1).all() and (ratio < 1.06).all()

    # The returned image has the reported distance, is misclassified and lies inside the box.
    delta = (np.asarray(result.x_adv) - x).reshape(10, -1)
    np.testing.assert_allclose(NORMS[norm](delta), result.distance, rtol=1e-12)
    assert (np.asarray(logits_fn(result.x_adv)).argmax(-1) != y).all()
    assert (result.x_adv >= 0).all() and (result.x_adv <= 1).all()


def test_where_nothing_is_found_the_clean_image_comes_back():
    logits_fn = lambda images: jnp.stack([jnp.ones(len(images)), 0 * images.sum((1, 2, 3))], -1)
    x = jnp.asarray(RNG.uniform(0, 1, (2, 4, 4, 1)))
    y = jnp.zeros(2, int)
    result = fab(logits_fn, targeted_boundary(logits_fn, y, y + 1), x, y, norm="l_inf", steps=3)
    assert np.isinf(result.distance).all() and (result.x_adv == x).all()
