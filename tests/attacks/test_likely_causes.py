"""Messages on networks that fail suggest what users of Flax most often get wrong."""

import functools

import flax.linen as nn
import jax
import numpy as np
import pytest

import rwp_jax
from rwp_jax.errors import InputError

IMAGES = np.random.default_rng(0).random((4, 8, 8, 1)).astype(np.float32)
LABELS = np.arange(4)


class Network(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.BatchNorm(use_running_average=not train)(nn.Conv(2, (3, 3))(x))
        return nn.Dense(5)(x.mean((1, 2)))


@pytest.fixture(scope="module")
def variables():
    return Network().init(jax.random.key(0), IMAGES)


TRAINING = r"; a network in training mode\? For evaluation: use_running_average=True"
CASES = {
    "channels first": (lambda v, x: Network().apply(v, x), r"are the images \[B, C, H, W\]\?"),
    "no variables": (lambda v, x: Network()(x), r"lambda x: model\.apply\(variables, x\)"),
    "training": (lambda v, x: Network().apply(v, x, True), TRAINING),
    "no statistics": (
        lambda v, x: Network().apply({"params": v["params"]}, x),
        "running statistics, batch_stats, among the variables",
    ),
    "mutable": (lambda v, x: Network().apply(v, x, True, mutable="batch_stats"), TRAINING),
}


ATTACKS = {
    "autoattack": functools.partial(rwp_jax.autoattack, norm="l_inf", epsilon=0.1),
    "minimum_norm": rwp_jax.minimum_norm,
    "pgd": functools.partial(
        rwp_jax.pgd, threat_model=rwp_jax.make_threat_model("l_inf", 0.1), steps=1, step_size=0.1
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("case", CASES)
def test_the_cause_is_suggested(attack, case, variables):
    function, suggested = CASES[case]
    x = IMAGES.transpose(0, 3, 1, 2) if case == "channels first" else IMAGES
    with pytest.raises(InputError, match=suggested) as error:
        ATTACKS[attack](lambda images: function(variables, images), x, LABELS)
    assert "\n" not in str(error.value)
