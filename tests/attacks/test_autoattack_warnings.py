"""What AutoAttack warns of."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rwp_jax.attacks.autoattack import (
    ApgdCE,
    AutoAttackWarning,
    FabT,
    Square,
    autoattack,
)
from rwp_jax.attacks.autoattack.checks import gradient_masking, randomness
from tests.attacks.small_networks import images, labels, network, quick


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
