"""The ensemble: its promises on any classifier, its warnings, its refusals, its state."""

import functools
import os
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rwp_jax.attacks.autoattack import (
    ApgdCE,
    ApgdDLR,
    ApgdT,
    AutoAttackWarning,
    Fab,
    FabT,
    Square,
    autoattack,
    ensemble,
    packing,
)
from rwp_jax.attacks.autoattack.ball import check_inside, into_ball
from rwp_jax.attacks.autoattack.checks import gradient_masking, randomness
from rwp_jax.attacks.autoattack.model import make_model
from rwp_jax.attacks.autoattack.suite import VERSIONS

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


def check_promises(result, logits_fn, x, y, norm, epsilon):
    clean = np.asarray(logits_fn(x)).argmax(-1) == y
    after = list(result.robust_after.values())
    np.testing.assert_array_equal(after[0], clean)
    for earlier, later in zip(after, after[1:], strict=False):
        assert not (later & ~earlier).any(), "an image became robust again"
    np.testing.assert_array_equal(result.robust, after[-1])
    delta = result.x_adv.astype(np.float64) - x
    sizes = abs(delta).max((1, 2, 3)) if norm == "Linf" else np.sqrt((delta**2).sum((1, 2, 3)))
    assert (sizes <= epsilon * (1 + 1e-12)).all()
    assert result.x_adv.min() >= 0 and result.x_adv.max() <= 1
    predicted = np.asarray(logits_fn(result.x_adv)).argmax(-1)
    np.testing.assert_array_equal(predicted == y, result.robust)
    np.testing.assert_array_equal(result.x_adv[result.robust], x[result.robust])
    np.testing.assert_array_equal(result.x_adv[~clean], x[~clean])


@pytest.mark.slow
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(
    seed=st.integers(0, 3),
    norm=st.sampled_from(["Linf", "L2"]),
    epsilon=st.sampled_from([1e-7, 1e-4, 0.01, 0.1, 0.5]),
    count=st.integers(1, 20),
    wrong=st.integers(0, 20),
    batch_size=st.sampled_from([1, 16]),
)
def test_promises(seed, norm, epsilon, count, wrong, batch_size):
    logits_fn, x = network(seed), images(count, seed)
    y = labels(logits_fn, x, wrong)
    result = quick(logits_fn, x, y, norm, epsilon, key=seed, batch_size=batch_size)
    check_promises(result, logits_fn, x, y, norm, epsilon)
    if wrong >= count:
        assert not result.robust.any()


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_pixels_at_the_edges(norm):
    logits_fn, x = network(), np.round(images(12))
    y = labels(logits_fn, x)
    check_promises(quick(logits_fn, x, y, norm, 0.3), logits_fn, x, y, norm, 0.3)


def test_every_attack_alone_finds_what_is_near():
    logits_fn, x = network(), images(12)
    y = labels(logits_fn, x)
    near = {}
    for attack in (ApgdCE(), ApgdDLR(), ApgdT(targets=4), Fab(), FabT(targets=4), Square()):
        result = autoattack(logits_fn, x, y, "Linf", 0.1, "custom", attacks=attack)
        check_promises(result, logits_fn, x, y, "Linf", 0.1)
        near[attack.name] = int(result.robust.sum())
    assert max(near.values()) - min(near.values()) <= 1 and min(near.values()) < 12, near


def test_restarts_and_targets_each_get_a_search():
    """Where nothing is found every search is run: as many iterations as the settings say."""
    logits_fn, x = network(), images(3)
    y = labels(logits_fn, x)
    calls = []
    attack = ApgdT(targets=4, restarts=2, steps=3)
    autoattack(
        logits_fn, x, y, "Linf", 1e-6, "custom", attacks=attack, batch_size=8, progress=calls.append
    )
    assert len(calls) == 3, "3 images x 4 targets x 2 restarts in batches of 8"
    assert [round(c.fraction, 2) for c in calls] == [0.33, 0.67, 1.0]
    assert calls[-1].robust == 3 and calls[-1].attack == "apgd-t"


def test_constant_network():
    constant = lambda x: jnp.tile(jnp.arange(5.0), (len(x), 1)) + 0 * x.sum((1, 2, 3))[:, None]
    x = images(5)
    with pytest.warns(AutoAttackWarning, match="zero gradients"):
        result = quick(constant, x, np.full(5, 4), "Linf", 0.1)
    assert result.robust.all() and any("zero gradients" in line for line in result.warnings)
    assert not quick(constant, x, np.full(5, 3), "Linf", 0.1).robust.any()


def test_versions():
    names = {version: [a.name for a in attacks] for version, attacks in VERSIONS.items()}
    assert names["standard"] == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert names["plus"] == ["apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"]
    assert [a.eot for a in VERSIONS["rand"]] == [20, 20]


def test_the_key_decides():
    logits_fn, x = network(), images(8)
    y = labels(logits_fn, x)
    run = lambda key: (
        autoattack(logits_fn, x, y, "Linf", 0.1, "custom", attacks="apgd-ce", key=key).x_adv
    )
    np.testing.assert_array_equal(run(1), run(jax.random.key(1)))
    np.testing.assert_array_equal(run(1), run(jax.random.PRNGKey(1)))
    assert (run(1) != run(2)).any()


# Warnings.


def warned(logits_fn, x, y, **arguments):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = quick(logits_fn, x, y, "Linf", 0.05, **arguments)
    messages = [str(w.message) for w in caught if w.category is AutoAttackWarning]
    assert messages == result.warnings
    return messages


def test_no_warning_without_reason():
    logits_fn, x = network(), images(6)
    assert warned(logits_fn, x, labels(logits_fn, x)) == []


def test_randomised_defence():
    logits_fn, x = network(), images(6)
    noisy = lambda x, key: logits_fn(x + 0.1 * jax.random.normal(key, x.shape))
    y = labels(logits_fn, x)
    assert warned(noisy, x, y, randomized=True) == [], "custom attacks are the user's choice"
    calls = lambda x, call: np.asarray(noisy(x, jax.random.key(call)))
    (message,) = randomness(calls, x, y, "standard", randomized=True)
    assert "use version='rand'" in message
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = autoattack(noisy, x, y, "Linf", 0.1, "rand", randomized=True)
    assert list(result.robust_after) == ["clean", "apgd-ce", "apgd-dlr"]
    (message,) = autoattack(logits_fn, x, y, "Linf", 0.1, "rand").warnings
    assert "averaged over equal evaluations" in message


@pytest.mark.filterwarnings("ignore::rwp_jax.attacks.autoattack.AutoAttackWarning")
def test_random_numbers_that_a_compiled_program_would_freeze():
    logits_fn, x, rng = network(), images(6), np.random.default_rng(0)
    noisy = lambda x: logits_fn(x) + 0.1 * rng.standard_normal(5)
    (message,) = warned(noisy, x, labels(logits_fn, x))
    assert "logits_fn is not pure" in message


def test_examples_that_interact():
    logits_fn, x = network(), images(6)
    by_batch = lambda x: logits_fn(x - x.mean(0) + 0.5)
    (message,) = warned(by_batch, x, labels(logits_fn, x))
    assert "depend on the others in its batch" in message


def test_probabilities():
    logits_fn, x = network(), images(6)
    (message,) = warned(lambda x: jax.nn.softmax(logits_fn(x)), x, labels(logits_fn, x))
    assert "probabilities" in message


def test_few_classes():
    for classes, left, about in ((2, 3, "needs 4 classes, there are 2"), (3, 3, "needs 4 classes")):
        logits_fn, x = network(classes=classes), images(6)
        y = labels(logits_fn, x)
        result = quick(logits_fn, x, y, "Linf", 0.05)
        assert any(about in line for line in result.warnings)
        assert len(result.robust_after) - 1 == left and "apgd-t" not in result.robust_after
    logits_fn = network(classes=4)
    attack = FabT(targets=9, steps=3)
    y = labels(logits_fn, images(3))
    result = autoattack(logits_fn, images(3), y, "Linf", 0.05, "custom", attacks=attack)
    assert "3 target classes, not 9" in result.warnings[0]


@pytest.mark.parametrize(
    ("after", "warned"),
    [
        ({"clean": 9, "apgd-ce": 8, "square": 7}, True),
        ({"clean": 9, "apgd-ce": 8, "square": 8}, False),
        ({"clean": 9, "apgd-ce": 8, "square": 0, "apgd-t": 0}, True),  # as in plus
        ({"clean": 9, "square": 1, "apgd-ce": 1}, False),  # no attack by gradients before it
        ({"clean": 9, "square": 1}, False),
        ({"clean": 9, "apgd-ce": 1}, False),
    ],
)
def test_square_is_compared_with_the_attacks_before_it(after, warned):
    robust_after = {name: np.arange(10) < count for name, count in after.items()}
    assert bool(list(gradient_masking(robust_after))) == warned


def test_gradient_masking():
    """Rounded inputs have no gradients; Square does without."""
    logits_fn, x = network(), images(10)
    masked = lambda x: logits_fn(jax.lax.stop_gradient(jnp.round(x * 20) / 20))
    y = labels(masked, x)
    attacks = (ApgdCE(steps=5), Square(queries=300))
    result = autoattack(masked, x, y, "Linf", 0.15, "custom", attacks=attacks)
    assert any("gradients may be masked" in line for line in result.warnings)


# Refusals.


@pytest.mark.parametrize(
    "change, about",
    [
        ({"x": images(4) * 255}, r"x= must have pixels in \[0, 1\], they are in \[.*\]"),
        ({"x": images(4) - 0.5}, "must have pixels in"),
        ({"x": np.where(images(4) > 0.9, np.nan, images(4))}, "some are NaN"),
        ({"x": np.zeros((4, 4, 4, 1), np.uint8)}, "x= is uint8, must be floating-point images"),
        ({"x": images(4)[0]}, r"x= is \[4, 4, 1\], must be images \[B, H, W, C\]"),
        ({"x": images(4)[:0], "y": np.zeros(0, int)}, "one at least"),
        ({"y": np.zeros(3, int)}, r"y= is int64\[3\], must be integer labels \[4\]"),
        ({"y": np.zeros(4)}, "y= is float64"),
        ({"y": np.array([0, 1, 2, -1])}, r"labels in \[-1, 2\]"),
        ({"y": np.array([0, 1, 2, 5])}, "labels up to 5, and logits_fn tells 5 classes apart"),
        ({"logits_fn": lambda x: x.sum((1, 2, 3))}, r"returns float32\[2\] for two images"),
        (
            {"logits_fn": lambda x: x.reshape(1, -1)},
            r"must return floating-point logits \[B, classes\]",
        ),
        ({"logits_fn": lambda x: jnp.zeros((len(x), 3), int)}, r"returns int64\[2, 3\]"),
        (
            {"logits_fn": lambda x: jnp.full((len(x), 3), jnp.nan)},
            "NaN or infinite logits for 4 of 4",
        ),
        ({"norm": "L1"}, "norm='L1' must be Linf or L2: L1 is not there yet"),
        ({"norm": "linf"}, "norm='linf' must be Linf or L2"),
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
        ({"logits_fn": lambda x: [x.reshape(len(x), -1)]}, "returns a list, must return an array"),
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


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_the_ball_is_exact(norm):
    """Against sizes computed here, at the box's faces, for tiny and ordinary radii."""
    rng = np.random.default_rng(0)
    x = np.round(rng.uniform(0, 1, (50, *SHAPE)) * 4).astype(np.float32) / 4
    for epsilon in (1e-9, 1e-7, 8 / 255, 0.5):
        wild = (x + rng.normal(0, 2 * epsilon, x.shape)).astype(np.float32)
        held = into_ball(wild, x, norm, epsilon)
        delta = held.astype(np.float64) - x
        sizes = abs(delta).max((1, 2, 3)) if norm == "Linf" else np.sqrt((delta**2).sum((1, 2, 3)))
        assert sizes.max() <= epsilon * (1 + 1e-12) and held.min() >= 0 and held.max() <= 1
        assert epsilon < 1e-6 or sizes.max() > 0.9 * epsilon
        check_inside(held, x, norm, epsilon)
    for bad in (held + 0.6, x - 0.01):
        with pytest.raises(AssertionError, match="an image left"):
            check_inside(bad, x, norm, 0.5)


def test_a_random_network_is_attacked_to_the_end():
    """A verdict of one draw may be taken back: the last of all iterations counts, as officially."""
    logits_fn, x = network(), images(24)
    y = labels(logits_fn, x)
    attack = ApgdCE(steps=20)
    run = functools.partial(
        autoattack, x=x, y=y, norm="Linf", epsilon=0.1, version="custom", attacks=attack
    )
    counts = []
    plain = run(logits_fn, progress=lambda moment: counts.append(moment.fraction))
    to_the_end = run(lambda z, key: logits_fn(z), randomized=True)
    np.testing.assert_array_equal(plain.robust, to_the_end.robust)
    broken = ~plain.robust
    assert broken.sum() > 4
    # The last misclassified point lies further in than the first.
    margin = lambda z: np.asarray(logits_fn(z))[np.arange(24), y]
    assert margin(to_the_end.x_adv)[broken].mean() < margin(plain.x_adv)[broken].mean() - 0.01


def test_a_refuted_success_is_searched_on(monkeypatch):
    """Verdicts stricter than the search: its first success does not hold, a later one does."""
    logits_fn, x = network(), images(12)
    y = labels(logits_fn, x)
    make = ensemble._make_classify

    def strict(*arguments):
        classify = make(*arguments)
        bonus = 0.3 * np.eye(5)

        def judge(points, call=0):
            rows = [np.argmin(np.abs(x - p).max((1, 2, 3))) for p in points]
            return classify(points, call) + bonus[y[rows]]

        return judge

    monkeypatch.setattr(ensemble, "_make_classify", strict)
    run = functools.partial(
        autoattack, logits_fn, x, y, "Linf", 0.1, "custom", attacks=ApgdCE(steps=20)
    )
    result = run()
    monkeypatch.setattr(
        packing.PackedBatch, "take_back", lambda self, ended, refuted: refuted & False
    )
    given_up = run()
    assert result.robust.sum() < given_up.robust.sum()


def test_one_device_and_one_slot():
    """Batches of 1, in a process with a single device."""
    code = """
import numpy as np, jax
from rwp_jax.attacks.autoattack import ApgdCE, Square, autoattack
rng = np.random.default_rng(0)
weights, x = rng.standard_normal((16, 5)), rng.uniform(0, 1, (5, 4, 4, 1)).astype(np.float32)
f = lambda z: (z.reshape(len(z), -1) - 0.5) @ weights.astype(np.float32)
y = np.asarray(f(x)).argmax(-1)
assert jax.local_device_count() == 1
attacks = (ApgdCE(steps=5), Square(queries=40))
run = lambda size: autoattack(f, x, y, "Linf", 0.05, "custom", attacks=attacks, batch_size=size)
one, many = run(1), run(16)
assert 0 < many.robust.sum() < 5
np.testing.assert_array_equal(one.robust, many.robust)
"""
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ, timeout=300)


# The state.


class Killed(Exception):
    pass


def test_continues_after_a_kill(tmp_path, monkeypatch):
    """Killed again and again, it ends with the same images, and repeats no attack."""
    monkeypatch.setattr("rwp_jax.attacks.autoattack.state.SAVE_SECONDS", 0)
    logits_fn, x = network(), images(30)
    y = labels(logits_fn, x, 2)
    attacks = (ApgdCE(steps=10), FabT(targets=2, steps=5), Square(queries=1500))
    run = functools.partial(
        autoattack, logits_fn, x, y, "Linf", 0.05, "custom", attacks=attacks, batch_size=8
    )
    whole, path, kills = run(), tmp_path / "state.npz", 0

    def killer():
        seen = []

        def progress(moment):
            seen.append(moment)
            if len(seen) == 3:
                raise Killed

        return progress

    while True:
        try:
            parts = run(state_path=path, progress=killer())
            break
        except Killed:
            kills += 1
    assert kills > 3
    np.testing.assert_array_equal(whole.x_adv, parts.x_adv)
    for name in whole.robust_after:
        np.testing.assert_array_equal(whole.robust_after[name], parts.robust_after[name])
    again = run(state_path=path, progress=lambda moment: pytest.fail("was finished"))
    np.testing.assert_array_equal(whole.x_adv, again.x_adv)


def test_the_state_of_something_else_is_refused(tmp_path):
    logits_fn, x = network(), images(6)
    y = labels(logits_fn, x)
    path = tmp_path / "state.npz"
    attacks = (ApgdCE(steps=3),)
    run = functools.partial(autoattack, version="custom", attacks=attacks, state_path=path)
    run(logits_fn, x, y)
    for arguments, about in (
        ((network(1), x, labels(network(1), x)), "other labels"),
        ((network(1), x, y), "other network"),
        ((logits_fn, 1 - x, y), "other images"),
        ((logits_fn, x, y, "L2"), "other norm"),
        ((logits_fn, x, y, "Linf", 0.2), "other epsilon"),
    ):
        with pytest.raises(ValueError, match=about):
            run(*arguments)
    with pytest.raises(ValueError, match="other attacks"):
        autoattack(logits_fn, x, y, state_path=path)
    with pytest.raises(ValueError, match="other network"):  # the same logits, but no gradient
        run(lambda z: logits_fn(jax.lax.stop_gradient(z)), x, y)
    with pytest.raises(ValueError, match="other precision"):
        run(logits_fn, x, y, precision="default")
    arrays = dict(np.load(path))
    for lost in ("figures", "x_adv", "robust_after", "broken", "identity"):
        np.savez(path, **{name: a for name, a in arrays.items() if name != lost})
        with pytest.raises(ValueError, match="is no state of AutoAttack"):
            run(logits_fn, x, y)
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="is no state of AutoAttack"):
        run(logits_fn, x, y)
    assert path.read_bytes() == b"nothing"


# Networks of others.


def test_weights_as_arguments(monkeypatch):
    """What is done on accelerators: the function's arrays are passed in, with the same results."""
    logits_fn, x = network(), images(6)
    y = labels(logits_fn, x)
    constants = quick(logits_fn, x, y, "Linf", 0.1)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    model = make_model(logits_fn, SHAPE, False)
    assert sorted(w.shape for w in model.weights) == [(12, 5), (16, 12)]
    by_batch = lambda z: logits_fn(z)[np.arange(len(z))] + np.zeros((len(z), 1), np.float32)
    assert make_model(by_batch, SHAPE, False).weights == ()
    assert quick(by_batch, x, y, "Linf", 0.1).robust.shape == (6,)
    arguments = quick(logits_fn, x, y, "Linf", 0.1)
    np.testing.assert_array_equal(constants.robust, arguments.robust)
    np.testing.assert_allclose(constants.x_adv, arguments.x_adv, atol=1e-5)


def test_flax_linen_and_nnx():
    """The README's two ways in, with BatchNorm and Dropout: no warning, and the same promises."""

    class Linen(linen.Module):
        @linen.compact
        def __call__(self, x, train=True):
            x = linen.Conv(4, (3, 3))(x)
            x = linen.relu(linen.BatchNorm(use_running_average=not train)(x))
            x = linen.Dropout(0.5, deterministic=not train)(x.reshape(len(x), -1))
            return linen.Dense(5)(x)

    class Nnx(nnx.Module):
        def __init__(self, rngs):
            self.conv = nnx.Conv(1, 4, (3, 3), rngs=rngs)
            self.norm = nnx.BatchNorm(4, rngs=rngs)
            self.dropout = nnx.Dropout(0.5, rngs=rngs)
            self.linear = nnx.Linear(64, 5, rngs=rngs)

        def __call__(self, x):
            x = nnx.relu(self.norm(self.conv(x)))
            return self.linear(self.dropout(x.reshape(len(x), -1)))

    x = images(6)
    model = Linen()
    variables = model.init({"params": jax.random.key(0)}, x, train=False)
    network = Nnx(nnx.Rngs(0))
    network.eval()
    graph, state = nnx.split(network)
    for logits_fn in (
        lambda x: model.apply(variables, x, train=False),
        lambda x: nnx.merge(graph, state)(x),
    ):
        y = labels(logits_fn, x)
        result = quick(logits_fn, x, y, "Linf", 0.1)
        check_promises(result, logits_fn, x, y, "Linf", 0.1)
        assert result.warnings == [] and not result.robust.all()
