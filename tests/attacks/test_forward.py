"""Randomised networks draw independently for each verdict, part of a batch, device and search."""

import jax
import jax.numpy as jnp
import numpy as np

from rwp_jax.attacks.autoattack import Square, packing
from rwp_jax.attacks.autoattack.forward import Forward
from rwp_jax.attacks.autoattack.model import make_model
from rwp_jax.attacks.autoattack.slots import compile_attack
from tests.attacks.small_networks import SHAPE, images

KEY = jax.random.key(0)
DEVICES = jax.local_device_count()


def noise(x, key):
    """Returns logits that are pure noise, equal for all images that share a draw."""
    return jax.random.normal(key, (1, 5)) + 0 * x.sum((1, 2, 3))[:, None]


MODEL = make_model(noise, SHAPE, True)


def test_verdicts_vary():
    forward = Forward(MODEL, KEY, DEVICES)
    first, second = (forward(images(2 * DEVICES)) for _ in range(2))
    draws = np.concatenate([first, second])
    assert len(np.unique(draws, axis=0)) == 4 * DEVICES, "calls, parts or devices share a draw"
    assert forward.calls == 4


def test_verdicts_go_on_where_they_were():
    forward, later = Forward(MODEL, KEY, DEVICES), Forward(MODEL, KEY, DEVICES)
    forward(images(DEVICES))
    later.calls = 1
    np.testing.assert_array_equal(forward(images(DEVICES)), later(images(DEVICES)))


def test_searches_draw_what_no_other_does():
    """Draws differ between devices and rounds, and from the keys that the searches start from."""
    attack, x = Square(queries=1000), images(DEVICES)
    y = np.zeros(DEVICES, np.int32)
    programs = compile_attack(attack, MODEL, "l_inf", 0.1, SHAPE, "highest")
    used = []

    def advance(key, least, slots):
        used.append(key)
        return programs.advance(key, least, slots)

    jobs = np.stack([np.arange(DEVICES), np.zeros(DEVICES)], 1).astype(np.int32)
    batch = packing.PackedBatch(
        programs._replace(advance=advance),
        attack,
        packing.Images(x, y, y[:, None], np.zeros(1, np.int32)),
        jobs,
        KEY,
        DEVICES,
    )
    batch.refill(np.zeros(DEVICES, bool))
    batch.advance()
    margins = np.asarray(batch.slots.state.margin)
    assert len(np.unique(margins)) == DEVICES
    batch.advance()
    starts = {tuple(jax.random.key_data(jax.random.fold_in(KEY, i)).tolist()) for i in range(9)}
    rounds = {tuple(jax.random.key_data(key).tolist()) for key in used}
    assert len(rounds) == 2 and not rounds & starts


def test_deterministic_networks_take_no_key():
    model = make_model(lambda x: x.reshape(len(x), -1), SHAPE, False)
    forward, x = Forward(model, KEY, DEVICES), images(3 * DEVICES)
    np.testing.assert_array_equal(forward(x), jnp.asarray(x).reshape(len(x), -1))
    np.testing.assert_array_equal(forward(x, 2 * DEVICES), forward(x))
