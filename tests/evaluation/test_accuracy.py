import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rwp_jax.attacks.pgd import forward_in_mode, pgd_steps
from rwp_jax.attacks.threat_model import make_threat_model
from rwp_jax.distributed import devices
from rwp_jax.evaluation.accuracy import Sizes, make_count_correct, make_evaluation
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
