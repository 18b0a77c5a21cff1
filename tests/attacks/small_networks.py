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
    """Returns a small network with one hidden layer.

    It computes in float64, so that images beyond its decision boundary are so in every program.
    """
    first, second = (
        np.random.default_rng(seed).standard_normal(shape).astype(np.float32).astype(np.float64)
        for shape in ((16, 12), (12, classes))
    )
    pixels = lambda x: x.reshape(len(x), -1).astype(np.float64)
    return lambda x: scale * jax.nn.relu((pixels(x) - 0.5) @ first) @ second


def images(count, seed=0):
    return np.random.default_rng(seed).uniform(0, 1, (count, *SHAPE)).astype(np.float32)


def labels(logits_fn, x, wrong=0):
    """Returns the predictions as labels, of which the first `wrong` are changed to another class."""
    logits = np.asarray(logits_fn(x))
    y = logits.argmax(-1)
    y[:wrong] = (y[:wrong] + 1) % logits.shape[-1]
    return y


def check_promises(result, logits_fn, x, y, norm, epsilon):
    """Checks that images stay in ball and box and that a forward pass on x_adv confirms the verdicts."""
    clean = np.asarray(logits_fn(x)).argmax(-1) == y
    after = list(result.robust_after.values())
    np.testing.assert_array_equal(after[0], clean)
    for earlier, later in zip(after, after[1:], strict=False):
        assert not (later & ~earlier).any(), "an image became robust again"
    np.testing.assert_array_equal(result.robust, after[-1])
    delta = result.x_adv.astype(np.float64) - x
    order = {"l_inf": np.inf, "l_2": 2, "l_1": 1}[norm]
    sizes = np.linalg.norm(delta.reshape(len(x), -1), order, axis=1)
    assert (sizes <= epsilon * (1 + 1e-12)).all()
    assert result.x_adv.min() >= 0 and result.x_adv.max() <= 1
    predicted = np.asarray(logits_fn(result.x_adv)).argmax(-1)
    np.testing.assert_array_equal(predicted == y, result.robust)
    np.testing.assert_array_equal(result.x_adv[result.robust], x[result.robust])
    np.testing.assert_array_equal(result.x_adv[~clean], x[~clean])
