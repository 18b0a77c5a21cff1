"""Distances to the nearest misclassified image where they are known, and gradient-masking defences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rwp_jax.attacks.autoattack import (
    ApgdCE,
    ApgdLoss,
    AutoAttackWarning,
    Fab,
    FabT,
    Square,
    autoattack,
    minimum_norm,
)
from rwp_jax.errors import InputError
from rwp_jax.losses import cross_entropy
from tests.attacks.small_networks import SHAPE, images, labels, network, quick

ORDER = {"l_inf": np.inf, "l_2": 2, "l_1": 1}
DUAL = {"l_inf": 1, "l_2": 2, "l_1": np.inf}


@pytest.mark.parametrize("attack", ["fmn", "fab", "fab-t"])
@pytest.mark.parametrize("norm", ["l_inf", "l_2", "l_1"])
def test_distances_to_planes(norm, attack):
    """For a linear network away from the faces of the box, |z_y - z_c| / ||w_y - w_c|| in the dual norm."""
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((16, 3)).astype(np.float32)
    logits_fn = lambda x: (x.reshape(len(x), -1) - 0.5) @ weights
    x = rng.uniform(0.45, 0.55, (6, *SHAPE)).astype(np.float32)
    logits = np.asarray(logits_fn(x))
    y = logits.argmax(-1)
    gaps = np.full((6, 3), np.inf)
    for i, label in enumerate(y):
        for c in {0, 1, 2} - {int(label)}:
            normal = weights[:, label] - weights[:, c]
            gaps[i, c] = (logits[i, label] - logits[i, c]) / np.linalg.norm(normal, DUAL[norm])
    result = minimum_norm(logits_fn, x, y, norm, attack, steps=200)
    nearest = np.min(gaps, 1)
    assert (result.distance >= nearest * (1 - 1e-4)).all()
    np.testing.assert_allclose(result.distance, nearest, rtol=0.06)
    size = np.linalg.norm((result.x_adv.astype(float) - x).reshape(6, -1), ORDER[norm], axis=1)
    np.testing.assert_allclose(size, result.distance, rtol=1e-12)
    assert (np.asarray(logits_fn(result.x_adv)).argmax(-1) != y).all()


def test_the_curve_is_of_the_distances():
    logits_fn, x = network(), images(12)
    y = labels(logits_fn, x, wrong=3)
    result = minimum_norm(logits_fn, x, y, "l_inf", steps=40)
    assert (result.distance[:3] == 0).all() and np.isfinite(result.distance).all()
    curve = result.robust_accuracy([0, 0.01, 0.5])
    assert curve[0] == 0.75 and curve[1] >= curve[2] == 0
    radius = float(np.median(result.distance))
    attacked = quick(logits_fn, x, y, "l_inf", radius)
    assert abs(attacked.robust.mean() - result.robust_accuracy([radius])[0]) <= 1 / 12
    alone = minimum_norm(logits_fn, x, y, "l_inf", "fmn", steps=40)
    assert (result.distance <= alone.distance).all()


def test_nothing_found_is_infinity():
    constant = lambda x: jnp.tile(jnp.arange(3.0), (len(x), 1)) + 0 * x.sum((1, 2, 3))[:, None]
    with pytest.warns(
        AutoAttackWarning, match="no misclassified image was found for 2 of 2 images"
    ):
        result = minimum_norm(constant, images(2), np.full(2, 2), steps=3)
    assert np.isinf(result.distance).all()
    for radii in (-1, np.nan, np.inf, None, "a", [[0.1, 0.2]]):
        with pytest.raises(InputError, match="^radii= must be"):
            result.robust_accuracy(radii)
    np.testing.assert_array_equal(result.x_adv, images(2))


@pytest.mark.parametrize("attack", ["fmn", "fab", "fab-t"])
def test_nan_is_distance_0(attack):
    x = images(6)
    x[:, 0, 0] = 0.5
    x[2, 0, 0] = 1.0
    near = lambda z: jnp.abs(z[:, None] - jnp.asarray(x)).max((2, 3, 4)).min(1) < 1e-6
    broken = lambda z: jnp.where(((z[:, 0, 0, 0] > 0.8) & ~near(z))[:, None], jnp.nan, network()(z))
    y = labels(broken, x)
    with pytest.warns(AutoAttackWarning, match=r"for 1 image in all \(number 2\)"):
        result = minimum_norm(broken, x, y, "l_inf", attack, steps=10)
    assert result.distance[2] == 0 and (np.delete(result.distance, 2) > 0).all()
    assert len(result.warnings) == 1


def test_doubts_about_the_network():
    by_batch = lambda x: network()(x - x.mean(0) + 0.5)
    with pytest.warns(AutoAttackWarning, match="depend on"):
        minimum_norm(by_batch, images(6), labels(by_batch, images(6)), attacks="fmn", steps=2)


@pytest.mark.parametrize(
    ("arguments", "about"),
    [
        ({"attacks": 3}, "attacks=3 must be some of fmn"),
        (
            {"gradient_fn": lambda x: network(classes=3)(x)},
            "gradient_fn= returns logits of 3 classes",
        ),
        ({"attacks": "pgd"}, "attacks='pgd' must be one of fmn, fab, fab-t"),
        ({"attacks": []}, "attacks= is empty"),
        ({"steps": 0}, "steps=0 must be"),
        ({"norm": "L0"}, "norm='L0'"),
        ({"gradient_fn": 3}, "gradient_fn=3 must be a function"),
        (
            {"gradient_fn": lambda x: x},
            r"gradient_fn returns float32\[2, 4, 4, 1\] for images",
        ),
    ],
)
def test_refusals(arguments, about):
    with pytest.raises(InputError, match=about):
        minimum_norm(network(), images(4), np.zeros(4, int), **arguments)


# A gradient-masking defence and the attack that circumvents it.


def test_a_masked_gradient_falls_to_bpda():
    """Rounding has no gradient and hides most images from APGD; BPDA removes this effect."""
    plain, x = network(), images(12)
    masked = lambda x: plain(jnp.round(x * 64) / 64)
    y = labels(masked, x)
    run = lambda logits_fn, **given: autoattack(
        logits_fn, x, y, "l_inf", 0.1, "custom", attacks=ApgdCE(steps=20), **given
    )
    trusting = run(masked)
    adaptive = run(masked, gradient_fn=plain)
    undefended = run(plain)
    assert trusting.robust.mean() > 0.5 > adaptive.robust.mean()
    assert abs(int(adaptive.robust.sum()) - int(undefended.robust.sum())) <= 1
    np.testing.assert_array_equal(adaptive.y_adv == y, adaptive.robust)
    nearest = minimum_norm(masked, x, y, "l_inf", "fmn", steps=40, gradient_fn=plain)
    assert (nearest.distance <= 0.1).mean() >= 1 - adaptive.robust.mean() - 1 / 12


def test_bpda_of_randomised_networks():
    plain, x = network(), images(6)
    noisy = lambda x, key: plain(jnp.round(x * 64) / 64 + 0.01 * jax.random.normal(key, x.shape))
    y = labels(plain, x)
    result = autoattack(
        noisy,
        x,
        y,
        "l_inf",
        0.1,
        "custom",
        attacks=ApgdCE(steps=20, eot=2),
        randomized=True,
        gradient_fn=lambda x, key: plain(x),
    )
    assert result.robust.mean() < 0.7


def test_a_loss_of_the_callers():
    """A user-defined cross-entropy breaks about as many images as ApgdCE, its negative almost none."""
    logits_fn, x = network(), images(12)
    y = labels(logits_fn, x)
    run = lambda attack: autoattack(logits_fn, x, y, "l_inf", 0.05, "custom", attacks=attack).robust
    own = run(ApgdLoss(function=cross_entropy, steps=20))
    assert abs(int(own.sum()) - int(run(ApgdCE(steps=20)).sum())) <= 1
    assert run(ApgdLoss(function=lambda z, y: -cross_entropy(z, y), steps=20)).sum() >= 10
    halves = [ApgdLoss(function=lambda z, y, s=s: s * cross_entropy(z, y)) for s in (0.5, 2.0)]
    for attack in halves:
        attack.check(5)
    assert repr(halves[0]) != repr(halves[1]), "a state of one is not the other's"
    with pytest.raises(InputError, match="function=3 must be a function"):
        ApgdLoss(function=3)
    with pytest.raises(InputError, match="function= returns .* must return floating-point losses"):
        run(ApgdLoss(function=lambda z, y: z))


@pytest.mark.parametrize("attack", [Fab, FabT, Square])
def test_averages_over_draws(attack):
    """With noise that averages out, averaging over draws (eot) breaks images."""
    plain, x = network(), images(6)
    y = labels(plain, x)
    noisy = lambda x, key: plain(x) + 0.5 * jax.random.normal(key, (1, 5))
    settings = {"queries": 60} if attack is Square else {"steps": 5}
    result = autoattack(
        noisy, x, y, "l_inf", 0.1, "custom", attacks=attack(eot=8, **settings), randomized=True
    )
    assert result.robust.sum() <= 3
    assert "eot=8" in repr(attack(eot=8)) and "eot" not in repr(attack())
