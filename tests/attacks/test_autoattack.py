"""The ensemble and the guarantees that it gives for any classifier."""

import dataclasses
import functools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from rwp_jax.attacks.autoattack import (
    ApgdCE,
    ApgdDLR,
    ApgdT,
    AutoAttackWarning,
    Fab,
    FabT,
    Square,
    autoattack,
    ensemble,
    packing,
)
from rwp_jax.attacks.autoattack.ball import check_inside, into_ball
from rwp_jax.attacks.autoattack.model import make_model
from rwp_jax.attacks.autoattack.suite import VERSIONS
from tests.attacks.small_networks import SHAPE, check_promises, images, labels, network, quick


@pytest.mark.parametrize("norm", ["l_inf", "l_2"])
def test_pixels_at_the_edges(norm):
    logits_fn, x = network(), np.round(images(12))
    y = labels(logits_fn, x)
    check_promises(quick(logits_fn, x, y, norm, 0.3), logits_fn, x, y, norm, 0.3)


def test_every_attack_alone_finds_what_is_near():
    logits_fn, x = network(), images(12)
    y = labels(logits_fn, x)
    near = {}
    for attack in (ApgdCE(), ApgdDLR(), ApgdT(targets=4), Fab(), FabT(targets=4), Square()):
        result = autoattack(logits_fn, x, y, "l_inf", 0.1, "custom", attacks=attack)
        check_promises(result, logits_fn, x, y, "l_inf", 0.1)
        near[attack.name] = int(result.robust.sum())
    assert max(near.values()) - min(near.values()) <= 1 and min(near.values()) < 12, near


def test_restarts_and_targets_each_get_a_search():
    """If no attack succeeds, every search runs for the number of iterations in the settings."""
    logits_fn, x = network(), images(3)
    y = labels(logits_fn, x)
    calls = []
    attack = ApgdT(targets=4, restarts=2, steps=3)
    autoattack(
        logits_fn,
        x,
        y,
        "l_inf",
        1e-6,
        "custom",
        attacks=attack,
        batch_size=8,
        progress=calls.append,
    )
    assert len(calls) == 3, "3 images x 4 targets x 2 restarts in batches of 8"
    assert [round(c.fraction, 2) for c in calls] == [0.33, 0.67, 1.0]
    assert calls[-1].robust == 3 and calls[-1].attack == "apgd-t"


def test_constant_network():
    constant = lambda x: jnp.tile(jnp.arange(5.0), (len(x), 1)) + 0 * x.sum((1, 2, 3))[:, None]
    x = images(5)
    with pytest.warns(AutoAttackWarning, match="zero gradients"):
        result = quick(constant, x, np.full(5, 4), "l_inf", 0.1)
    assert result.robust.all() and any("zero gradients" in line for line in result.warnings)
    assert not quick(constant, x, np.full(5, 3), "l_inf", 0.1).robust.any()


def test_versions():
    names = {version: [a.name for a in attacks] for version, attacks in VERSIONS.items()}
    assert names["standard"] == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert names["plus"] == ["apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"]
    ce, dlr = ApgdCE(restarts=1, steps=100, eot=1), ApgdDLR(restarts=1, steps=100, eot=1)
    targeted = ApgdT(targets=9, restarts=1, steps=100, eot=1)
    fab_t, square = FabT(targets=9, restarts=1, steps=100), Square(restarts=1, queries=5000, p=0.8)
    assert VERSIONS["standard"] == (ce, targeted, fab_t, square)
    assert VERSIONS["rand"] == (ApgdCE(eot=20), ApgdDLR(eot=20))
    five = [dataclasses.replace(attack, restarts=5) for attack in (ce, dlr, Fab(steps=100))]
    assert VERSIONS["plus"] == (*five, square, targeted, fab_t)


def test_the_key_decides():
    logits_fn, x = network(), images(8)
    y = labels(logits_fn, x)
    run = lambda key: (
        autoattack(logits_fn, x, y, "l_inf", 0.1, "custom", attacks="apgd-ce", key=key).x_adv
    )
    np.testing.assert_array_equal(run(1), run(jax.random.key(1)))
    np.testing.assert_array_equal(run(1), run(jax.random.PRNGKey(1)))
    assert (run(1) != run(2)).any()


@pytest.mark.parametrize("norm", ["l_inf", "l_2"])
def test_the_ball_is_exact(norm):
    """Compares with norms computed here, for images at the faces of the box and tiny to ordinary radii."""
    rng = np.random.default_rng(0)
    x = np.round(rng.uniform(0, 1, (50, *SHAPE)) * 4).astype(np.float32) / 4
    for epsilon in (1e-9, 1e-7, 8 / 255, 0.5):
        wild = (x + rng.normal(0, 2 * epsilon, x.shape)).astype(np.float32)
        held = into_ball(wild, x, norm, epsilon)
        delta = held.astype(np.float64) - x
        sizes = abs(delta).max((1, 2, 3)) if norm == "l_inf" else np.sqrt((delta**2).sum((1, 2, 3)))
        assert sizes.max() <= epsilon * (1 + 1e-12) and held.min() >= 0 and held.max() <= 1
        assert epsilon < 1e-6 or sizes.max() > 0.9 * epsilon
        check_inside(held, x, norm, epsilon)
    for bad in (held + 0.6, x - 0.01):
        with pytest.raises(AssertionError, match="an image left"):
            check_inside(bad, x, norm, 0.5)


def test_a_random_network_is_attacked_to_the_end():
    """A new draw may reverse a verdict: the last success of all iterations counts, as officially."""
    logits_fn, x = network(), images(24)
    y = labels(logits_fn, x)
    attack = ApgdCE(steps=20)
    run = functools.partial(
        autoattack, x=x, y=y, norm="l_inf", epsilon=0.1, version="custom", attacks=attack
    )
    counts = []
    plain = run(logits_fn, progress=lambda moment: counts.append(moment.fraction))
    to_the_end = run(lambda z, key: logits_fn(z), randomized=True)
    np.testing.assert_array_equal(plain.robust, to_the_end.robust)
    broken = ~plain.robust
    assert broken.sum() > 4
    # The last misclassified point lies further in than the first.
    margin = lambda z: np.asarray(logits_fn(z))[np.arange(24), y]
    assert margin(to_the_end.x_adv)[broken].mean() < margin(plain.x_adv)[broken].mean() - 0.01


def test_a_refuted_success_is_searched_on(monkeypatch):
    """With verdicts stricter than the search, its first success is refuted and a later one is confirmed."""
    logits_fn, x = network(), images(12)
    y = labels(logits_fn, x)

    class Strict(ensemble.Forward):
        def __call__(self, points, size=None):
            rows = [np.argmin(np.abs(x - p).max((1, 2, 3))) for p in points]
            return super().__call__(points, size) + 0.3 * np.eye(5)[y[rows]]

    monkeypatch.setattr(ensemble, "Forward", Strict)
    run = functools.partial(
        autoattack, logits_fn, x, y, "l_inf", 0.1, "custom", attacks=ApgdCE(steps=20)
    )
    result = run()
    monkeypatch.setattr(
        packing.PackedBatch, "take_back", lambda self, ended, refuted: refuted & False
    )
    given_up = run()
    assert result.robust.sum() < given_up.robust.sum()


def test_one_device_and_one_slot():
    """Batches of one image, in a process with a single device."""
    code = """
import numpy as np, jax
from rwp_jax.attacks.autoattack import ApgdCE, Square, autoattack
rng = np.random.default_rng(0)
weights, x = rng.standard_normal((16, 5)), rng.uniform(0, 1, (5, 4, 4, 1)).astype(np.float32)
f = lambda z: (z.reshape(len(z), -1) - 0.5) @ weights.astype(np.float32)
y = np.asarray(f(x)).argmax(-1)
assert jax.local_device_count() == 1
attacks = (ApgdCE(steps=5), Square(queries=40))
run = lambda size: autoattack(f, x, y, "l_inf", 0.05, "custom", attacks=attacks, batch_size=size)
one, many = run(1), run(16)
assert 0 < many.robust.sum() < 5
np.testing.assert_array_equal(one.robust, many.robust)
"""
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ, timeout=300)


# User-defined networks.


def test_weights_as_arguments(monkeypatch):
    """As on accelerators, the function's arrays are passed as arguments; results are the same."""
    logits_fn, x = network(), images(6)
    y = labels(logits_fn, x)
    constants = quick(logits_fn, x, y, "l_inf", 0.1)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    model = make_model(logits_fn, SHAPE, False)
    assert sorted(w.shape for w in model.weights) == [(12, 5), (16, 12)]
    by_batch = lambda z: logits_fn(z)[np.arange(len(z))] + np.zeros((len(z), 1), np.float32)
    assert make_model(by_batch, SHAPE, False).weights == ()
    assert quick(by_batch, x, y, "l_inf", 0.1).robust.shape == (6,)
    arguments = quick(logits_fn, x, y, "l_inf", 0.1)
    np.testing.assert_array_equal(constants.robust, arguments.robust)
    np.testing.assert_allclose(constants.x_adv, arguments.x_adv, atol=1e-5)


def test_flax_linen_and_nnx():
    """Flax linen and NNX with BatchNorm and Dropout: no warning, and the same guarantees."""

    class Linen(linen.Module):
        @linen.compact
        def __call__(self, x, train=True):
            x = linen.Conv(4, (3, 3))(x)
            x = linen.relu(linen.BatchNorm(use_running_average=not train)(x))
            x = linen.Dropout(0.5, deterministic=not train)(x.reshape(len(x), -1))
            return linen.Dense(5)(x)

    class Nnx(nnx.Module):
        def __init__(self, rngs):
            self.conv = nnx.Conv(1, 4, (3, 3), rngs=rngs)
            self.norm = nnx.BatchNorm(4, rngs=rngs)
            self.dropout = nnx.Dropout(0.5, rngs=rngs)
            self.linear = nnx.Linear(64, 5, rngs=rngs)

        def __call__(self, x):
            x = nnx.relu(self.norm(self.conv(x)))
            return self.linear(self.dropout(x.reshape(len(x), -1)))

    x = images(6)
    model = Linen()
    variables = model.init({"params": jax.random.key(0)}, x, train=False)
    network = Nnx(nnx.Rngs(0))
    network.eval()
    graph, state = nnx.split(network)
    for logits_fn in (
        lambda x: model.apply(variables, x, train=False),
        lambda x: nnx.merge(graph, state)(x),
    ):
        y = labels(logits_fn, x)
        result = quick(logits_fn, x, y, "l_inf", 0.1)
        check_promises(result, logits_fn, x, y, "l_inf", 0.1)
        assert result.warnings == [] and not result.robust.all()
