"""Compiled programs serve other radii and, with `reuse`, other checkpoints, never another network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rwp_jax.attacks.autoattack import ApgdCE, autoattack, kept, minimum_norm
from rwp_jax.attacks.autoattack.model import make_model
from tests.attacks.small_networks import SHAPE, images, labels, network, quick
from tests.small import lowerings

X = images(6)


@pytest.fixture(autouse=True)
def nothing_kept():
    kept.forget()
    yield
    kept.forget()


def run(logits_fn, epsilon=0.1, **arguments):
    y = labels(network(), X)
    return quick(logits_fn, X, y, "l_inf", epsilon, **arguments)


def test_another_radius_compiles_nothing():
    with lowerings() as first:
        run(network(), 0.001)  # so small that every attack runs
    with lowerings() as second:
        result = run(network(), 0.05)
    assert first and not second
    kept.forget()
    np.testing.assert_array_equal(result.x_adv, run(network(), 0.05).x_adv)


def test_another_checkpoint_compiles_nothing_with_reuse():
    with lowerings() as first:
        run(network(0), 0.001, reuse=True)
    with lowerings() as second:
        result = run(network(1), 0.2, reuse=True)
    assert first and not second
    kept.forget()
    np.testing.assert_array_equal(result.x_adv, run(network(1), 0.2, reuse=True).x_adv)


def test_distances_compile_once():
    """With `reuse`, each attack compiles once for all checkpoints."""
    distances = lambda seed: minimum_norm(
        network(seed), X, labels(network(seed), X), steps=3, reuse=True
    )
    with lowerings() as first:
        distances(0)
    with lowerings() as second:
        result = distances(1)
    assert first and not second
    kept.forget()
    np.testing.assert_array_equal(result.x_adv, distances(1).x_adv)


def test_another_checkpoint_is_another_network_without_reuse():
    run(network(0))
    with lowerings() as second:
        result = run(network(1))
    assert second
    kept.forget()
    np.testing.assert_array_equal(result.x_adv, run(network(1)).x_adv)


def test_networks_that_differ_in_their_backward_pass_alone():
    """Their program text is the same because it does not show custom derivatives."""

    def with_backward(factor):
        @jax.custom_vjp
        def same(x):
            return x

        same.defvjp(lambda x: (x, None), lambda _, cotangent: (factor * cotangent,))
        return lambda x: network()(same(x))

    attack = ApgdCE(steps=5)
    y = labels(network(), X)
    robust = lambda factor, reuse: autoattack(
        with_backward(factor), X, y, "l_inf", 0.1, "custom", attacks=attack, reuse=reuse
    ).robust.sum()
    for reuse in (False, True):
        up, down = robust(1.0, reuse), robust(-1.0, reuse)
        assert up < down, "descent in place of ascent"
        assert robust(jnp.ones(1, jnp.float32), reuse) == up


@pytest.mark.parametrize("reuse", [False, True])
def test_weights_within_compiled_functions(reuse):
    """Such weights are not constants of the outer program, but must still distinguish two checkpoints."""

    def compiled(seed):
        @jax.custom_vjp
        def logits_fn(x):
            return network(seed)(x)

        gradient = lambda x, cotangent: jax.vjp(network(seed), x)[1](cotangent)
        logits_fn.defvjp(lambda x: (logits_fn(x), x), gradient)
        return jax.jit(logits_fn)

    first, second = (run(compiled(seed), 0.02, reuse=reuse) for seed in (0, 1))
    clean = lambda seed: np.asarray(network(seed)(X)).argmax(-1) == labels(network(), X)
    for seed, result in enumerate((first, second)):
        np.testing.assert_array_equal(result.robust_after["clean"], clean(seed))
    digests = {make_model(compiled(seed), SHAPE, False).digest for seed in (0, 1, 0)}
    assert len(digests) == 2


@pytest.mark.parametrize("reuse", [False, True])
def test_weights_of_a_backward_pass(reuse):
    """With BPDA, each checkpoint uses its own gradients, although its weights are arguments."""
    y = labels(network(), X)

    def attack(seed):
        masked = lambda x: network(seed)(jnp.round(x * 64) / 64)
        chosen = ApgdCE(steps=10)
        given = {"attacks": chosen, "gradient_fn": network(seed), "reuse": reuse}
        return autoattack(masked, X, y, "l_inf", 0.1, "custom", **given).x_adv

    attack(0)
    after = attack(1)
    kept.forget()
    np.testing.assert_array_equal(after, attack(1))


def test_the_latest_network_is_traced_for_new_shapes():
    """The network that a kept function was made from may since have been trained further in place."""
    held = {"seed": 0}
    run(lambda x: network(held["seed"])(x), 0.05, batch_size=8)
    held["seed"] = 1
    again = run(network(0), 0.05, batch_size=64)
    kept.forget()
    np.testing.assert_array_equal(again.x_adv, run(network(0), 0.05, batch_size=64).x_adv)


def test_networks_with_callbacks_are_not_kept():
    """Such networks may differ only in a Python function, which the program text does not show."""
    y = labels(network(), X)

    def logits_of(host):
        shape = lambda z: jax.ShapeDtypeStruct((len(z), 5), jnp.float32)
        back = lambda z: jax.pure_callback(host, shape(z), jax.lax.stop_gradient(z))
        return lambda z: network()(z) + back(z)

    zero = lambda z: np.zeros((len(z), 5), np.float32)
    other = lambda z: np.float32(50) * np.eye(5, dtype=np.float32)[np.full(len(z), 2)]
    attack = ApgdCE(steps=3)
    results = [
        autoattack(logits_of(host), X, y, "l_inf", 0.01, "custom", attacks=attack)
        for host in (zero, other)
    ]
    assert results[0].robust_after["clean"].all()
    np.testing.assert_array_equal(results[1].robust_after["clean"], y == 2)


def test_few_are_kept():
    for number in range(40):
        assert kept.kept(number, lambda number=number: [number]) == [number]
    assert kept.kept(39, list) == [39] and kept.kept(0, list) == []
    assert kept.kept(None, list) == [] and kept.kept(None, lambda: 1) == 1
