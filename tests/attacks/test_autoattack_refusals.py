"""What AutoAttack refuses, and NaN, which is never robust."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rwp_jax.attacks.autoattack import (
    ApgdCE,
    ApgdDLR,
    ApgdT,
    Fab,
    FabT,
    Square,
    autoattack,
)
from tests.attacks.small_networks import images, labels, network, quick


@pytest.mark.parametrize(
    "change, about",
    [
        ({"x": images(4) * 255}, r"x= must have pixels in \[0, 1\], they are in \[.*\]"),
        ({"x": images(4) - 0.5}, "must have pixels in"),
        ({"x": np.where(images(4) > 0.9, np.nan, images(4))}, "some are NaN"),
        ({"x": np.zeros((4, 4, 4, 1), np.uint8)}, "x= is uint8, must be floating-point images"),
        ({"x": images(4)[0]}, r"x= is \[4, 4, 1\], must be images \[B, H, W, C\]"),
        ({"x": images(4)[:0], "y": np.zeros(0, int)}, "at least one"),
        ({"y": np.zeros(3, int)}, r"y= is int64\[3\], must be integer labels \[4\]"),
        ({"y": np.zeros(4)}, "y= is float64"),
        ({"y": np.array([0, 1, 2, -1])}, r"labels in \[-1, 2\]"),
        (
            {"y": np.array([0, 1, 2, 5])},
            r"labels in \[0, 5\], must be in \[0, 5\), the classes of logits_fn",
        ),
        ({"logits_fn": lambda x: x.sum((1, 2, 3))}, r"returns float32\[2\] for images"),
        (
            {"logits_fn": lambda x: x.reshape(1, -1)},
            r"must return floating-point logits \[B, classes\]",
        ),
        ({"logits_fn": lambda x: jnp.zeros((len(x), 3), int)}, r"returns int64\[2, 3\]"),
        (
            {"logits_fn": lambda x: jnp.full((len(x), 3), jnp.nan)},
            "NaN or infinite logits for 4 of 4",
        ),
        ({"norm": "L0"}, "norm='L0' must be Linf, L2 or L1"),
        ({"norm": "linf"}, "norm='linf' must be Linf, L2 or L1"),
        ({"epsilon": 0}, r"epsilon=0 must be in \(0, 1\]"),
        ({"epsilon": float("nan")}, "epsilon=nan"),
        ({"epsilon": "8/255"}, "epsilon='8/255'"),
        ({"version": "fast"}, "version='fast' must be one of standard, plus, rand, custom"),
        ({"version": "custom"}, "attacks= is missing"),
        ({"version": "custom", "attacks": ["pgd"]}, "'pgd' must be one of apgd-ce"),
        ({"version": "custom", "attacks": ["square", "square"]}, "names one twice"),
        ({"attacks": ["square"]}, "attacks= is for version='custom'"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 1.5}, "batch_size=1.5"),
        ({"y": np.arange(4) + 2**32}, r"labels in \[4294967296"),
        ({"x": [[[[0.0]]], [[[0.0, 1.0]]]]}, "x= and y= must be arrays"),
        ({"epsilon": 1e-50}, "epsilon=1e-50 must be in"),
        ({"epsilon": 8}, r"epsilon=8 must be in \(0, 1\] \(pixels are in \[0, 1\]\) for Linf"),
        ({"epsilon": True}, "epsilon=True must be in"),
        ({"norm": "L2", "epsilon": 1001}, r"epsilon=1001 must be in \(0, 1000\] .* for L2"),
        ({"state_path": 3}, "state_path=3 must be a path"),
        ({"key": True}, "key=True must be"),
        ({"batch_size": True}, "batch_size=True must be"),
        ({"key": None}, "key=None must be one seed or one random key"),
        ({"key": 1.5}, "key=1.5 must be"),
        (
            {"key": jax.random.split(jax.random.key(0))},
            r"key= of shape \[2\] must be one seed or one random key",
        ),
        ({"precision": "hi"}, "precision='hi' must be known to jax.default_matmul_precision"),
        ({"version": ["standard"]}, "must be one of standard"),
        ({"version": "custom", "attacks": 5}, "5 must be one of apgd-ce"),
        ({"logits_fn": None}, r"logits_fn\(images\) fails on images .* TypeError"),
        (
            {"logits_fn": lambda x: [x.reshape(len(x), -1)]},
            r"returns a list for images .*: it must return",
        ),
        ({"logits_fn": lambda x: np.asarray(x).reshape(len(x), -1)}, "fails on images"),
        ({"randomized": True}, r"logits_fn\(images, key\) fails on images"),
        ({"state_path": "nowhere/state.npz"}, "there is no such directory"),
    ],
)
def test_refusals(change, about):
    arguments = {"logits_fn": network(), "x": images(4), "y": np.arange(4)} | change
    with pytest.raises(ValueError, match=about) as error:
        autoattack(**arguments)
    assert "\n" not in str(error.value)


def test_settings_of_attacks():
    for make in (lambda: Square(queries=0), lambda: Square(p=1.5), lambda: ApgdT(targets=0)):
        with pytest.raises(ValueError, match="must be"):
            make()


def test_nan_logits_in_the_middle():
    """Finite on the clean images, NaN off them: not taken for a success."""
    logits_fn, x = network(), images(4)
    near = jnp.asarray(x)
    broken = lambda z: jnp.where(
        jnp.abs(z[:, None] - near).max((2, 3, 4)).min(1)[:, None] < 1e-6, logits_fn(z), jnp.nan
    )
    with pytest.raises(ValueError, match="NaN or infinite logits for an image of apgd-ce"):
        quick(broken, x, labels(logits_fn, x), "Linf", 0.1)


ALL = (
    ApgdCE(steps=5),
    ApgdDLR(steps=5),
    ApgdT(targets=2, steps=5),
    Fab(steps=5),
    FabT(targets=2, steps=5),
)
ALL = (*ALL, Square(queries=30))


@pytest.mark.parametrize("attack", ALL, ids=lambda attack: attack.name)
def test_nan_is_never_robust(attack):
    """With label 0, which is the argmax of logits that are all NaN."""
    x = images(4)
    near = jnp.asarray(x)
    away = lambda z: jnp.abs(z[:, None] - near).max((2, 3, 4)).min(1)[:, None] > 1e-6
    first = lambda z: jnp.tile(jnp.arange(5.0, 0, -1), (len(z), 1)) + z.sum((1, 2, 3))[:, None]
    broken = lambda z: jnp.where(away(z), jnp.nan, first(z) + network()(z) / 10)
    y = np.zeros(4, int)
    assert (labels(broken, x) == y).all()
    with pytest.raises(ValueError, match=f"NaN .* for an image of {attack.name}"):
        autoattack(broken, x, y, "Linf", 0.1, "custom", attacks=attack)


@pytest.mark.parametrize("attack", ALL[:-1], ids=lambda attack: attack.name)
def test_nan_gradients_are_refused(attack):
    for number in (0, 1):
        order = jnp.roll(jnp.arange(5.0, 0, -1), number)
        logits_fn = lambda z, order=order: (
            order + 0 * network()(z) + jnp.sqrt(jnp.maximum(z[:, 0, 0] - 2, 0))
        )
        with pytest.raises(ValueError, match=f"NaN gradient for an image of {attack.name}"):
            autoattack(
                logits_fn, images(3), np.full(3, number), "Linf", 0.1, "custom", attacks=attack
            )
