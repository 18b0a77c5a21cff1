"""A network of this package with made-up numbers, shared by the tests of foreign files."""

import jax
import numpy as np
import pytest

from rwp_jax.models.classifier import make_classifier

MODEL = "wrn-10-1"


@pytest.fixture(scope="package")
def templates():
    params, batch_stats = make_classifier(MODEL, 10).shapes((8, 8, 3))
    return {"params": params, "batch_stats": batch_stats}


@pytest.fixture(scope="package")
def variables(templates):
    """Returns `params` and `batch_stats` of positive float32 numbers, no two of them alike."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.uniform(0.1, 1, leaf.shape).astype(np.float32), templates)
