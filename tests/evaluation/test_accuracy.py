import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rwp_jax.attacks.pgd import forward_in_mode, pgd_steps
from rwp_jax.attacks.threat_model import make_threat_model
from rwp_jax.distributed import devices
from rwp_jax.evaluation.accuracy import (
    Sizes,
    attack_images,
    make_count_correct,
    make_evaluation,
    stepped_attack,
)
from rwp_jax.losses import cross_entropy
from rwp_jax.models.classifier import make_classifier

COUNT = 27  # not a multiple of any batch size
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (COUNT, 8, 8, 1), dtype=np.uint8)


@pytest.fixture(scope="module")
def setting():
    """Returns a network, its state, and labels of which it predicts two thirds correctly."""
    classifier = make_classifier("wrn-10-1", 10, dtype="float64")
    params, batch_stats = classifier.init(jax.random.key(0), (8, 8, 1))
    predicted = classifier.eval(params, batch_stats, IMAGES / 255).argmax(-1)
    labels = np.where(np.arange(COUNT) % 3, predicted, (predicted + 1) % 10).astype(np.int32)
    return classifier, params, batch_stats, labels


@pytest.fixture(scope="module")
def expected(setting):
    """Returns both accuracies, computed without batches, padding or devices."""
    classifier, params, batch_stats, y = setting
    threat_model, x = make_threat_model("l_2", 0.05), jnp.asarray(IMAGES) / 255.0
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(5), i))(jnp.arange(COUNT))
    delta, _ = pgd_steps(
        forward_in_mode(classifier, params, "eval"),
        lambda logits: cross_entropy(logits, y),
        threat_model,
        x,
        threat_model.sample(keys, x),
        batch_stats,
        step_size=0.02,
        steps=3,
    )
    correct = lambda x: np.asarray(classifier.eval(params, batch_stats, x).argmax(-1) == y)
    accuracy = lambda x: correct(x).mean()
    return {"natural_accuracy": accuracy(x), "pgd_accuracy": accuracy(x + delta)}


@pytest.mark.parametrize(("batch_size", "mode"), [(8, "pmap"), (16, "shard_map"), (32, "pmap")])
def test_every_example_counts_once(setting, expected, batch_size, mode):
    classifier, *state, labels = setting
    assert 0 < expected["pgd_accuracy"] < expected["natural_accuracy"] < 1
    count_correct = make_count_correct(
        classifier,
        "l_2",
        steps=3,
        batch_size=batch_size,
        mode=mode,
    )
    evaluate = make_evaluation(count_correct, batch_size)
    arguments = devices.replicate((*state, IMAGES, labels, jax.random.key(5), Sizes(0.05, 0.02)))
    assert evaluate(*arguments) == pytest.approx(expected, abs=1e-12)


def test_the_attack_may_be_on_the_margin(setting):
    """The program with C&W's loss counts the images that withstand an attack on it, one by one."""
    classifier, params, batch_stats, y = setting
    attack = stepped_attack("cw3", 0.02)
    sizes, keys = Sizes(0.05, 0.02), jax.random.key(5)
    x = jnp.asarray(IMAGES) / 255.0
    fixed = make_threat_model("l_2", 0.05), attack, params, batch_stats
    attacked = jax.jit(
        lambda x: attack_images(classifier, *fixed, x, y, keys, jnp.arange(COUNT), COUNT)
    )(x)
    logits = np.asarray(classifier.eval(params, batch_stats, attacked))
    robust = (logits.argmax(-1) == y).mean()
    others = np.where(np.arange(10) == y[:, None], 0, logits).max(-1)
    margin = logits[np.arange(COUNT), y] - others + 10
    np.testing.assert_allclose(attack.loss(logits, y), -np.maximum(margin, 0), rtol=1e-12)
    count = make_count_correct(
        classifier, "l_2", steps=3, batch_size=8, mode="pmap", loss=attack.loss
    )
    arguments = devices.replicate((params, batch_stats, IMAGES, y, keys, sizes))
    assert make_evaluation(count, 8)(*arguments)["pgd_accuracy"] == pytest.approx(robust, abs=1e-12)
