"""The ensemble in L1: its versions, and its guarantees for small networks and images of any shape."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rwp_jax.attacks.autoattack import (
    ApgdCE,
    ApgdDLR,
    ApgdT,
    AutoAttackWarning,
    Fab,
    FabT,
    Square,
    autoattack,
    suite,
)
from rwp_jax.attacks.autoattack.ball import check_inside
from rwp_jax.attacks.autoattack.suite import VERSIONS, attacks_of
from tests.attacks.small_networks import images, labels, network

SHORT = (
    ApgdCE(restarts=2, steps=10, large_radii=True),
    ApgdDLR(steps=10),
    ApgdT(targets=2, steps=10, large_radii=True),
    Fab(restarts=2, steps=5),
    FabT(targets=2, steps=5),
    Square(queries=30),
)


def check_promises(result, logits_fn, x, y, epsilon):
    check_inside(result.x_adv, x, "l_1", epsilon)
    wrong = np.asarray(logits_fn(result.x_adv)).argmax(-1) != y
    np.testing.assert_array_equal(wrong, ~result.robust)
    np.testing.assert_array_equal(result.x_adv[result.robust], x[result.robust])


def test_the_versions_are_the_official():
    standard = attacks_of("standard", None, "l_1")
    assert [attack.name for attack in standard] == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert standard[0] == ApgdCE(restarts=5, large_radii=True)
    assert standard[1] == ApgdT(targets=5, large_radii=True)
    assert standard[2:] == (FabT(), Square())
    for version in ("plus", "rand"):
        assert attacks_of(version, None, "l_1") is VERSIONS[version]
    for norm in ("l_inf", "l_2"):
        assert attacks_of("standard", None, norm) is VERSIONS["standard"]


def test_reprs_are_as_before_but_for_large_radii():
    """State files contain these reprs."""
    assert repr(ApgdCE()) == "ApgdCE(restarts=1, steps=100, eot=1)"
    assert repr(ApgdDLR(eot=20)) == "ApgdDLR(restarts=1, steps=100, eot=20)"
    assert repr(ApgdT()) == "ApgdT(targets=9, restarts=1, steps=100, eot=1)"
    assert repr(SHORT[0]) == "ApgdCE(restarts=2, steps=10, eot=1, large_radii=True)"


def test_refusals():
    logits_fn, x = network(), images(2)
    y = labels(logits_fn, x)
    with pytest.raises(
        ValueError, match="apgd-ce has large_radii, which is for l_1 only, not for l_2"
    ):
        autoattack(logits_fn, x, y, "l_2", 0.1, "custom", attacks=ApgdCE(large_radii=True))
    with pytest.raises(ValueError, match="large_radii=1 must be True or False"):
        ApgdCE(large_radii=1)
    with pytest.raises(ValueError, match=r"epsilon=16 must be in \[0, 16\) .* for l_1"):
        autoattack(logits_fn, x, y, "l_1", 16)


@pytest.mark.parametrize("epsilon", [0.3, 15.9])
def test_promises(epsilon):
    """All attacks in sequence keep the guarantees, with the same verdicts for any batch size."""
    logits_fn, x = network(scale=2.0), images(12)
    x[:3] = np.round(x[:3])
    y = labels(logits_fn, x, 1)
    results = [
        autoattack(logits_fn, x, y, "l_1", epsilon, "custom", attacks=SHORT, key=1, batch_size=size)
        for size in (16, 3)
    ]
    for result in results:
        check_promises(result, logits_fn, x, y, epsilon)
    np.testing.assert_array_equal(results[0].robust, results[1].robust)
    assert results[0].robust.any() == (epsilon < 1)


@pytest.mark.parametrize("attack", SHORT, ids=lambda attack: attack.name)
def test_every_attack_alone_finds_what_is_near(attack):
    logits_fn, x = network(), images(12)
    y = labels(logits_fn, x)
    result = autoattack(logits_fn, x, y, "l_1", 2.0, "custom", attacks=attack)
    check_promises(result, logits_fn, x, y, 2.0)
    assert result.robust.sum() <= 6


@pytest.mark.parametrize("version", ["standard", "plus", "rand"])
def test_the_versions_run(version, monkeypatch):
    """Each version runs, with fewer iterations than by default."""
    fewer = lambda attack: type(attack)(
        **({"queries": 20} if isinstance(attack, Square) else {"steps": 3}),
        **{
            name: getattr(attack, name)
            for name in ("restarts", "eot", "large_radii")
            if hasattr(attack, name)
        },
    )
    monkeypatch.setitem(suite.VERSIONS, version, tuple(map(fewer, VERSIONS[version])))
    monkeypatch.setattr(suite, "_STANDARD_L1", tuple(map(fewer, suite._STANDARD_L1)))
    weights = np.random.default_rng(0).standard_normal((16, 5)).astype(np.float32)

    def logits_fn(images, key):
        noise = 0.01 * jax.random.normal(key, images.shape)
        return (images + noise).reshape(len(images), -1) @ weights

    plain = lambda images: images.reshape(len(images), -1) @ weights
    x = images(6)
    y = labels(plain, x)
    if version == "rand":
        result = autoattack(logits_fn, x, y, "l_1", 0.5, version, randomized=True)
        check_inside(result.x_adv, x, "l_1", 0.5)
    else:
        result = autoattack(plain, x, y, "l_1", 0.5, version)
        check_promises(result, plain, x, y, 0.5)
    assert not result.robust.all()


@pytest.mark.filterwarnings("ignore::rwp_jax.attacks.autoattack.AutoAttackWarning")
@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 2, 2)])
def test_images_of_any_shape_and_two_classes(shape):
    weights = np.random.default_rng(0).standard_normal((int(np.prod(shape)), 2))
    weights = weights.astype(np.float32)
    logits_fn = lambda z: (z.reshape(len(z), -1) - 0.5) @ weights
    x = np.random.default_rng(1).uniform(0, 1, (6, *shape)).astype(np.float32)
    y = labels(logits_fn, x)
    result = autoattack(logits_fn, x, y, "l_1", 0.4, "custom", attacks=SHORT)
    check_promises(result, logits_fn, x, y, 0.4)


@pytest.mark.parametrize("attack", (SHORT[0], SHORT[4]), ids=lambda attack: attack.name)
def test_nan_gradients_count_as_not_robust(attack):
    order = jnp.roll(jnp.arange(5.0, 0, -1), 1)
    logits_fn = lambda z: order + 0 * network()(z) + jnp.sqrt(jnp.maximum(z[:, 0, 0] - 2, 0))
    with pytest.warns(AutoAttackWarning, match=f"for 3 images under {attack.name}"):
        result = autoattack(
            logits_fn, images(3), np.full(3, 1), "l_1", 0.5, "custom", attacks=attack
        )
    assert not result.robust.any()
