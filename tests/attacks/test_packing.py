"""Packing does not change results: each search ends as it would alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rwp_jax.attacks.autoattack import packing
from rwp_jax.attacks.autoattack.apgd import apgd, random_start
from rwp_jax.attacks.autoattack.model import make_model
from rwp_jax.attacks.autoattack.slots import compile_attack
from rwp_jax.attacks.autoattack.suite import ApgdCE, FabT, Square
from rwp_jax.losses import cross_entropy

RNG = np.random.default_rng(0)
SHAPE, EPSILON = (4, 4, 1), 0.05
WEIGHTS = RNG.standard_normal((16, 5)).astype(np.float32)
X = RNG.uniform(0.3, 0.7, (40, *SHAPE)).astype(np.float32)


def logits_fn(images):
    return jnp.tanh((images.reshape(len(images), -1) - 0.5) @ WEIGHTS)


Y = np.asarray(logits_fn(X).argmax(-1), np.int32)
KEY = jax.random.key(3)


def search(attack, x=X, y=Y, batch_size=16, interrupt=None):
    """Runs one search per image and returns (fooled, x_adv, rounds); x_adv is x where not fooled."""
    model = make_model(logits_fn, SHAPE, False)
    programs = compile_attack(attack, model, "l_inf", EPSILON, SHAPE, "highest")
    target = np.argsort(-np.asarray(logits_fn(x)), -1)[:, 1:2].astype(np.int32)
    images = packing.Images(x, y, target, np.zeros(1, np.int32))
    jobs = np.stack([np.arange(len(x)), np.zeros(len(x))], 1).astype(np.int32)
    broken, fooled, x_adv = np.zeros(len(x), bool), np.full(len(x), -1), x.copy()
    batch = packing.PackedBatch(programs, attack, images, jobs, KEY, batch_size)
    rounds = 0
    for ended in packing.run(batch, broken):
        assert (fooled[ended.image] == -1).all(), "a search ended twice"
        fooled[ended.image] = ended.fooled
        x_adv[ended.image[ended.fooled]] = ended.x_adv
        rounds += 1
        if interrupt == rounds:
            done, snapshot = fooled != -1, batch.snapshot()
            batch = packing.PackedBatch(programs, attack, images, jobs[~done], KEY, batch_size)
            batch.restore(snapshot)
            for ended in packing.run(batch, broken):
                fooled[ended.image] = ended.fooled
                x_adv[ended.image[ended.fooled]] = ended.x_adv
            break
    return fooled, x_adv, rounds


def test_batch_sizes():
    """On eight devices: the batch is halved as long as all searches fit, down to eight slots per device."""
    assert [packing.batch_size_for(n, 256) for n in (1, 64, 65, 128, 300)] == [
        64,
        64,
        128,
        128,
        256,
    ]
    assert packing.batch_size_for(100, 24) == 24 and packing.batch_size_for(1, 1) == 8


def test_every_search_ends_once_as_it_would_alone():
    """Fools the same images as plain APGD from the same starting points."""
    attack = ApgdCE(steps=20)
    fooled, x_adv, rounds = search(attack)
    assert rounds > 1 and set(fooled) == {0, 1}
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.fold_in(KEY, i), 0))(np.arange(len(X)))
    start = random_start(keys, jnp.asarray(X), "l_inf", EPSILON)
    loss = lambda logits: cross_entropy(logits, Y)
    alone = jax.jit(
        lambda: apgd(logits_fn, loss, X, Y, start, norm="l_inf", epsilon=EPSILON, steps=20)
    )()
    np.testing.assert_array_equal(fooled == 0, alone.robust)
    predicted = np.asarray(logits_fn(x_adv).argmax(-1))
    np.testing.assert_array_equal(predicted != Y, fooled == 1)


@pytest.mark.parametrize("attack", [ApgdCE(steps=20), FabT(steps=20), Square(queries=150)])
def test_the_batch_changes_nothing(attack):
    """Draws depend only on the image, so every batch size gives the same result."""
    fooled, x_adv, _ = search(attack, batch_size=16)
    other, x_other, _ = search(attack, batch_size=40)
    np.testing.assert_array_equal(fooled, other)
    np.testing.assert_allclose(x_adv, x_other, atol=1e-6)


@pytest.mark.parametrize("attack", [ApgdCE(steps=20), Square(queries=1200)])
def test_a_search_goes_on_from_its_snapshot(attack):
    """After an interruption, the remaining searches give the same bits."""
    whole = search(attack)
    assert whole[2] > 2
    parts = search(attack, interrupt=2)
    for a, b in zip(whole[:2], parts[:2], strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_smaller_batch_begins_searches_anew():
    """A snapshot of another batch size, as after running out of memory, does not restore slots."""
    model = make_model(logits_fn, SHAPE, False)
    programs = compile_attack(ApgdCE(steps=20), model, "l_inf", EPSILON, SHAPE, "highest")
    images = packing.Images(X, Y, Y[:, None], np.zeros(1, np.int32))
    jobs = np.stack([np.arange(len(X)), np.zeros(len(X))], 1).astype(np.int32)
    make = lambda size: packing.PackedBatch(programs, ApgdCE(steps=20), images, jobs, KEY, size)
    large, small, equal = make(40), make(16), make(40)
    large.refill(np.zeros(len(X), bool))
    small.restore(large.snapshot())
    equal.restore(large.snapshot())
    assert (small.size, len(small.jobs), small.occupied.sum()) == (16, 40, 0)
    assert (equal.size, len(equal.jobs), equal.occupied.sum()) == (40, 0, 40)


def test_images_that_are_broken_are_given_up():
    model = make_model(logits_fn, SHAPE, False)
    attack = Square(queries=10_000)
    programs = compile_attack(attack, model, "l_inf", 1e-6, SHAPE, "highest")
    images = packing.Images(X, Y, Y[:, None], np.zeros(1, np.int32))
    jobs = np.stack([np.arange(len(X)), np.zeros(len(X))], 1).astype(np.int32)
    batch = packing.PackedBatch(programs, attack, images, jobs, KEY, 16)
    broken, rounds = np.zeros(len(X), bool), 0
    for _ in packing.run(batch, broken):
        broken[:] = True
        rounds += 1
    assert rounds == 1


def test_odd_batch_sizes_are_halved_too():
    assert packing.batch_size_for(24, 1_000_000) == 64 and packing.batch_size_for(100, 250) == 128
