"""Precision of matrix products: AutoAttack searches at the one given, and verdicts are at the highest."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rwp_jax.attacks.autoattack import autoattack, kept


@pytest.mark.parametrize("precision", ["default", "high", "highest"])
def test_verdicts_are_at_the_highest_precision(precision):
    """At other precisions, this network has every image wrong: searches begin from misclassified images."""
    rng = np.random.default_rng(0)
    weights = np.float32(rng.normal(size=(12, 3)))
    x = np.float32(rng.uniform(size=(8, 2, 2, 3)))
    y = (x.reshape(8, -1) @ weights).argmax(1)
    traced = []

    def logits_fn(x):
        found = jax.config.jax_default_matmul_precision
        traced.append(found)
        logits = jnp.dot(x.reshape(len(x), -1), weights)
        return logits if found == "highest" else -logits

    kept.forget()  # a program compiled before would not be traced again
    result = autoattack(
        *(logits_fn, x, y, "l_inf", 1e-3, "custom"), attacks=["apgd-ce"], precision=precision
    )
    kept.forget()
    assert result.robust_after["clean"].all() and result.robust.all()
    searched = None if precision == "default" else precision  # as JAX's configuration spells it
    assert {searched, "highest"} <= set(traced)
