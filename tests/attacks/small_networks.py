"""Small networks and images, and a quick AutoAttack on them."""

import functools

import jax
import numpy as np

from rwp_jax.attacks.autoattack import (
    ApgdCE,
    ApgdT,
    FabT,
    Square,
    autoattack,
)

SHAPE = (4, 4, 1)
QUICK = (ApgdCE(steps=5), ApgdT(targets=2, steps=5), FabT(targets=2, steps=3), Square(queries=30))
quick = functools.partial(autoattack, version="custom", attacks=QUICK)


def network(seed=0, classes=5, scale=1.0):
    """A small network of one hidden layer."""
    first, second = (
        np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
        for shape in ((16, 12), (12, classes))
    )
    return lambda x: scale * jax.nn.relu((x.reshape(len(x), -1) - 0.5) @ first) @ second


def images(count, seed=0):
    return np.random.default_rng(seed).uniform(0, 1, (count, *SHAPE)).astype(np.float32)


def labels(logits_fn, x, wrong=0):
    """Predictions, the first few made wrong."""
    logits = np.asarray(logits_fn(x))
    y = logits.argmax(-1)
    y[:wrong] = (y[:wrong] + 1) % logits.shape[-1]
    return y
