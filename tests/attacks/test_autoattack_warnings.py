"""The warnings of AutoAttack."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from rwp_jax.attacks.autoattack import (
    ApgdCE,
    ApgdLoss,
    ApgdT,
    AutoAttackWarning,
    FabT,
    Square,
    autoattack,
)
from rwp_jax.attacks.autoattack.doubts import gradient_masking
from rwp_jax.attacks.autoattack.interaction import (
    randomness,
)
from rwp_jax.attacks.autoattack.model import make_model
from tests.attacks.small_networks import SHAPE, images, labels, network, quick


def warned(logits_fn, x, y, **arguments):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = quick(logits_fn, x, y, "l_inf", 0.05, **arguments)
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
    draws = iter(range(5))
    fresh = lambda x: np.asarray(noisy(x, jax.random.key(next(draws))))
    (message,) = randomness(fresh, x, y, "standard", randomized=True)
    assert "use version='rand'" in message
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = autoattack(noisy, x, y, "l_inf", 0.1, "rand", randomized=True)
    assert list(result.robust_after) == ["clean", "apgd-ce", "apgd-dlr"]
    (message,) = autoattack(logits_fn, x, y, "l_inf", 0.1, "rand").warnings
    assert "averaged over identical evaluations" in message


@pytest.mark.filterwarnings("ignore::rwp_jax.attacks.autoattack.AutoAttackWarning")
def test_random_numbers_that_a_compiled_program_would_freeze():
    logits_fn, x, rng = network(), images(6), np.random.default_rng(0)
    noisy = lambda x: logits_fn(x) + 0.1 * rng.standard_normal(5)
    (message,) = warned(noisy, x, labels(logits_fn, x))
    assert "logits_fn is not pure" in message and "dropout in training mode?" in message


@pytest.mark.parametrize("key", [jax.random.key(3), jax.random.PRNGKey(3)], ids=["typed", "raw"])
def test_random_numbers_of_a_frozen_key(key):
    """All images share the noise, so that they do not depend on each other."""
    logits_fn, x = network(), images(6)
    noisy = lambda x: logits_fn(x + 0.01 * jax.random.normal(key, x.shape[1:]))
    (message,) = warned(noisy, x, labels(noisy, x))
    assert "from a fixed key" in message and "randomized=True" in message


def test_a_key_that_is_closed_over_counts_as_a_weight():
    """Networks that differ only in a typed key have different digests; the key may be an argument."""
    keys = [jax.random.key(3), jax.random.key(4)]
    models = [make_model(lambda x, k=k: _projected(x, k), SHAPE, False, "gpu") for k in keys]
    assert models[0].digest != models[1].digest
    assert models[0].digest == make_model(lambda x: _projected(x, keys[0]), SHAPE, False).digest


def _projected(x, key):
    return x.reshape(len(x), -1) @ jax.random.normal(key, (16, 5))


INTERACTIONS = {
    "its place in its batch": lambda x: x + 0.1 * jnp.arange(len(x)).reshape(-1, 1, 1, 1) % 0.3,
    "the others in its batch": lambda x: x - x.mean(0) + 0.5,
    "the size of its batch": lambda x: x * len(x) / 16,
}


@pytest.mark.parametrize("what", INTERACTIONS)
def test_examples_that_interact(what):
    logits_fn, x = network(), images(6)
    by_batch = lambda x: logits_fn(INTERACTIONS[what](x))
    message, *others = warned(by_batch, x, labels(logits_fn, x))
    assert all("evaluated once more" in other for other in others)
    assert f"depend on {what}" in message or f"and on {what}" in message
    assert "so do verdicts: BatchNorm in training mode?" in message


def test_examples_that_interact_in_a_randomised_network():
    """Equal keys separate the interaction from noise; noise alone causes no warning."""
    logits_fn, x = network(), images(6)
    noise = lambda x, key: 0.05 * jax.random.normal(key, x.shape)
    y = labels(logits_fn, x)
    assert warned(lambda x, k: logits_fn(x + noise(x, k)), x, y, randomized=True) == []
    by_batch = lambda x, k: logits_fn(x - x.mean(0) + 0.5 + noise(x, k))
    (message,) = warned(by_batch, x, y, randomized=True)
    assert "depend, for the same key, on the others in its batch" in message


def test_a_loss_without_a_gradient_is_warned_of():
    logits_fn, x = network(), images(6)
    flat = lambda logits, y: 0 * jnp.take_along_axis(logits, y[:, None], 1)[:, 0]
    y = labels(logits_fn, x)
    (message,) = warned(logits_fn, x, y, attacks=ApgdLoss(function=flat, steps=2))
    assert "apgd-loss met 6 starting points with zero gradients" in message


def test_batch_norm_in_training_mode():
    """For linen and nnx, the message states how to switch to evaluation mode."""

    class Linen(linen.Module):
        @linen.compact
        def __call__(self, x):
            x = linen.BatchNorm(use_running_average=False)(linen.Dense(7)(x.reshape(len(x), -1)))
            return linen.Dense(5)(linen.relu(x))

    class Nnx(nnx.Module):
        def __init__(self, rngs):
            self.linear, self.norm = nnx.Linear(16, 5, rngs=rngs), nnx.BatchNorm(5, rngs=rngs)

        def __call__(self, x):
            return self.norm(self.linear(x.reshape(len(x), -1)))

    x, model = images(6), Linen()
    variables = model.init(jax.random.key(0), x)
    logits_fn = lambda x: model.apply(variables, x, mutable=["batch_stats"])[0]
    message, *others = warned(logits_fn, x, labels(logits_fn, x))
    assert all("evaluated once more" in other for other in others)
    assert "depend on" in message and "use_running_average=True" in message
    # Linen without `mutable`, and nnx while traced, refuse to update running statistics.
    for fails in (lambda x: model.apply(variables, x), Nnx(nnx.Rngs(0))):
        with pytest.raises(ValueError, match=r"a network in training mode\? .* model.eval\(\)"):
            warned(fails, x, np.zeros(6, int))


def test_defences_that_take_gradients():
    """The warning also appears if the gradient is taken within a compiled function traced earlier."""
    logits_fn, x = network(), images(6)
    away = jax.jit(
        lambda x: x - 0.001 * jnp.sign(jax.grad(lambda z: logits_fn(z).max(-1).sum())(x))
    )
    for _ in range(2):
        (message,) = warned(lambda x: logits_fn(away(x)), x, labels(logits_fn, x))
        assert "takes gradients itself" in message and "adaptive attack" in message


def test_nothing_is_classified_correctly():
    logits_fn, x = network(), images(6)
    (message,) = warned(logits_fn, x, labels(logits_fn, x, wrong=6))
    assert "clean accuracy is 0: none of the 6 images" in message


def test_default_targets_need_no_warning():
    """With eight classes, the default of nine targets means all seven others."""
    logits_fn, x = network(classes=8), images(6)
    attacks = [ApgdT(steps=2), FabT(steps=2)]
    result = autoattack(
        logits_fn, x, labels(logits_fn, x), "l_inf", 0.01, "custom", attacks=attacks
    )
    assert result.warnings == []


def test_probabilities():
    logits_fn, x = network(), images(6)
    (message,) = warned(lambda x: jax.nn.softmax(logits_fn(x)), x, labels(logits_fn, x))
    assert "probabilities" in message


def test_few_classes():
    for classes, left, about in ((2, 3, "needs 4 classes, there are 2"), (3, 3, "needs 4 classes")):
        logits_fn, x = network(classes=classes), images(6)
        y = labels(logits_fn, x)
        result = quick(logits_fn, x, y, "l_inf", 0.05)
        assert any(about in line for line in result.warnings)
        assert len(result.robust_after) - 1 == left and "apgd-t" not in result.robust_after
    logits_fn = network(classes=4)
    attack = FabT(targets=7, steps=3)
    y = labels(logits_fn, images(3))
    result = autoattack(logits_fn, images(3), y, "l_inf", 0.05, "custom", attacks=attack)
    assert "3 target classes, not 7" in result.warnings[0]


@pytest.mark.parametrize(
    ("after", "warned"),
    [
        ({"clean": 9, "apgd-ce": 8, "square": 5}, True),
        ({"clean": 9, "apgd-ce": 8, "square": 6}, False),  # two images are not enough
        ({"clean": 9, "apgd-ce": 8, "square": 8}, False),
        ({"clean": 9, "apgd-ce": 8, "square": 0, "apgd-t": 0}, True),  # as in plus
        ({"clean": 9, "square": 1, "apgd-ce": 1}, False),  # no gradient-based attack before it
        ({"clean": 9, "square": 1}, False),
        ({"clean": 9, "apgd-ce": 1}, False),
    ],
)
def test_square_is_compared_with_the_attacks_before_it(after, warned):
    robust_after = {name: np.arange(10) < count for name, count in after.items()}
    assert bool(list(gradient_masking(robust_after))) == warned


def test_gradient_masking():
    """Rounded inputs have no gradients, and Square does not need them."""
    logits_fn, x = network(), images(10)
    masked = lambda x: logits_fn(jax.lax.stop_gradient(jnp.round(x * 20) / 20))
    y = labels(masked, x)
    attacks = (ApgdCE(steps=5), Square(queries=300))
    result = autoattack(masked, x, y, "l_inf", 0.15, "custom", attacks=attacks)
    broken = int(result.robust_after["apgd-ce"].sum() - result.robust.sum())
    left = int(result.robust_after["apgd-ce"].sum())
    (message,) = (line for line in result.warnings if "gradients may be masked" in line)
    assert broken >= 3 and f"Square broke {broken} of the {left} images" in message
