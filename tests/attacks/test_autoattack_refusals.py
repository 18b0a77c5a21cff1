"""Invalid arguments of AutoAttack, and NaN, which never counts as robust."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rwp_jax.attacks.autoattack import (
    ApgdCE,
    ApgdDLR,
    ApgdT,
    AutoAttackWarning,
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
            {"logits_fn": lambda x: jnp.full((len(x), 5), jnp.nan)},
            "NaN or infinite logits for each of the 4 clean images",
        ),
        ({"norm": "L0"}, "norm='L0' must be l_inf, l_2 or l_1"),
        ({"norm": 2}, "norm=2 must be l_inf, l_2 or l_1"),
        ({"epsilon": -1e-9}, r"epsilon=-1e-09 must be in \[0, 1\)"),
        ({"epsilon": 1}, r"epsilon=1 must be in \[0, 1\)"),
        ({"epsilon": float("nan")}, "epsilon=nan"),
        ({"epsilon": "8/255"}, "epsilon='8/255'"),
        ({"version": "fast"}, "version='fast' must be one of standard, plus, rand, custom"),
        ({"version": "custom"}, "attacks= is missing"),
        ({"version": "custom", "attacks": ["pgd"]}, "'pgd' must be one of apgd-ce"),
        ({"version": "custom", "attacks": ["square", "square"]}, "names an attack twice"),
        ({"attacks": ["square"]}, "attacks= is for version='custom'"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 1.5}, "batch_size=1.5"),
        ({"y": np.arange(4) + 2**32}, r"labels in \[4294967296"),
        ({"x": [[[[0.0]]], [[[0.0, 1.0]]]]}, "x= and y= must be arrays"),
        ({"epsilon": 8}, r"epsilon=8 must be in \[0, 1\) \(pixels are in \[0, 1\]\) for l_inf"),
        ({"epsilon": True}, "epsilon=True must be in"),
        (
            {"norm": "l_2", "epsilon": 4},
            r"epsilon=4 must be in \[0, 4\) .* for l_2 and images \[4, 4, 1\]",
        ),
        ({"progress": 1}, "progress=1 must be True, False or a function"),
        ({"state_path": 3}, "state_path=3 must be a path"),
        ({"key": True}, "key=True must be"),
        ({"batch_size": True}, "batch_size=True must be"),
        ({"key": None}, "key=None must be one seed or one random key"),
        ({"key": 1.5}, "key=1.5 must be"),
        (
            {"key": jax.random.split(jax.random.key(0))},
            r"key= of shape \[2\] must be one seed or one random key",
        ),
        ({"precision": "hi"}, "precision='hi' must be a value of jax.default_matmul_precision"),
        ({"precision": "TF32_TF32_F32"}, "precision='TF32_TF32_F32' .* that cpu devices support"),
        ({"version": ["standard"]}, "must be one of standard"),
        ({"version": "custom", "attacks": 5}, "5 must be one of apgd-ce"),
        ({"logits_fn": None}, "logits_fn=None must be a function"),
        ({"logits_fn": np.ones(2), "x": None}, r"logits_fn=array\(\[1., 1.\]\) must be a function"),
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


ALL = (
    ApgdCE(steps=5),
    ApgdDLR(steps=5),
    ApgdT(targets=2, steps=5),
    Fab(steps=5),
    FabT(targets=2, steps=5),
    Square(queries=30),
)


def near(x, of):
    """Returns a mask of the images in `x` that equal an image in `of`."""
    return jnp.abs(x[:, None] - jnp.asarray(of)).max((2, 3, 4)).min(1) < 1e-6


@pytest.mark.parametrize("norm", ["l_inf", "l_2"])
@pytest.mark.parametrize("attack", ALL, ids=lambda attack: attack.name)
def test_nan_off_the_clean_image_counts_as_not_robust(attack, norm):
    """The label may be 0, the argmax of all-NaN logits; other images are attacked as usual."""
    x = images(12)
    x[:, 0, 0] = 0.5
    x[[3, 7], 0, 0] = 1.0  # marks the NaN images; other images cannot reach it in a small ball
    marked = lambda z: (z[:, 0, 0, 0] > 0.8) & ~near(z, x)
    broken = lambda z: jnp.where(marked(z)[:, None], jnp.nan, network()(z))
    y = labels(broken, x)
    run = lambda logits_fn: autoattack(logits_fn, x, y, norm, 0.1, "custom", attacks=attack)
    with pytest.warns(
        AutoAttackWarning, match=rf"for 2 images under {attack.name} \(number 3, 7\)"
    ):
        result = run(broken)
    assert not result.robust[[3, 7]].any() and np.isfinite(result.x_adv).all()
    others = np.setdiff1d(np.arange(12), [3, 7])
    np.testing.assert_array_equal(result.robust[others], run(network()).robust[others])


@pytest.mark.parametrize("attack", ALL[:-1], ids=lambda attack: attack.name)
def test_nan_gradients_count_as_not_robust(attack):
    """Logits are finite, but the gradient of one image is NaN."""
    x = images(4)
    x[2, 0, 0] = 0
    root = lambda z: jnp.sqrt(jnp.where(near(z, x[2:3]), 0 * z[:, 0, 0, 0], 1))[:, None]
    logits_fn = lambda z: network()(z) + root(z)
    y = labels(logits_fn, x)
    attack = dataclasses.replace(attack, restarts=1)
    start = autoattack(logits_fn, x, y, "l_inf", 0, "custom", attacks=attack)
    assert start.robust.tolist() == [True, True, False, True]
    assert f"for 1 image under {attack.name} (number 2): it counts" in start.warnings[0]


def test_nan_on_clean_images(tmp_path):
    """Such images are named once and not attacked, also when the evaluation is resumed."""
    x = images(8)
    logits_fn = lambda z: jnp.where(near(z, x[[2, 5]])[:, None], jnp.nan, network()(z))
    y = labels(network(), x)
    for _ in range(2):
        result = quick(logits_fn, x, y, "l_inf", 0.01, state_path=tmp_path / "state.npz")
        assert "for 2 images before any attack (number 2, 5)" in result.warnings[0]
        assert result.robust_after["clean"].tolist() == [i not in (2, 5) for i in range(8)]
        assert result.robust.any() and not result.robust[[2, 5]].any()
        np.testing.assert_array_equal(result.x_adv[[2, 5]], x[[2, 5]])


def test_what_was_given_up_is_named_again_by_a_state(tmp_path):
    x = images(8)
    logits_fn = lambda z: jnp.where(near(z, x)[:, None], network()(z), jnp.nan)
    y = labels(logits_fn, x)
    run = lambda: quick(logits_fn, x, y, "l_inf", 0.1, state_path=tmp_path / "state.npz")
    first, second = run(), run()
    assert first.warnings == second.warnings and "8 images under apgd-ce" in first.warnings[0]


@pytest.mark.parametrize("scale", [1e12, 3e36])
@pytest.mark.parametrize("norm", ["l_inf", "l_2"])
def test_huge_logits_are_no_nan(norm, scale):
    """Rounding errors of huge logits overflow exponentials; squared gradients overflow float32."""
    x = images(8)
    small = lambda z: network()(z) + 1
    huge = lambda z: scale * small(z)
    y = labels(small, x)
    for attack in ALL:
        run = lambda logits_fn: autoattack(
            logits_fn,
            x,
            y,
            norm,
            0.1,
            "custom",
            attacks=attack,  # noqa: B023
        )
        result = run(huge)
        assert result.warnings == [] or attack.least_classes > 2
        if attack.name != "apgd-ce":  # its gradient vanishes there
            assert abs(int(result.robust.sum()) - int(run(small).robust.sum())) <= 1


@pytest.mark.parametrize("progress", [True, False, None])
def test_progress_as_a_bar(progress, capsys):
    logits_fn, x = network(), images(4)
    quick(logits_fn, x, labels(logits_fn, x), "l_inf", 0.01, progress=progress)
    shown = capsys.readouterr().err
    assert ("apgd-ce (1 of 4) [####" in shown and "of 4 images robust\n" in shown) == bool(progress)


def test_rounding_of_pixels_is_clipped():
    logits_fn, x = network(), np.round(images(4))
    y = labels(logits_fn, x)
    off = np.where(x == 0, -3e-8, 1 + 3e-8)
    results = [quick(logits_fn, pixels, y, "l_inf", 0.1) for pixels in (x, off)]
    np.testing.assert_array_equal(results[0].x_adv, results[1].x_adv)
    x[1, 2, 3], x[1, 0, 0], x[3, 1, 1] = 1.5, -0.2, 2
    with pytest.raises(
        ValueError, match="3 of 64 pixels are outside, in 2 images, the first is number 1"
    ):
        quick(logits_fn, x, y, "l_inf", 0.1)
