import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rwp_jax.attacks.pgd import forward_in_mode, pgd, pgd_steps
from rwp_jax.attacks.threat_model import make_threat_model
from rwp_jax.errors import InputError
from rwp_jax.losses import cross_entropy
from rwp_jax.models.classifier import make_classifier
from rwp_jax.models.layers import fold_moments


@pytest.mark.parametrize("norm", ["l_inf", "l_2"])
def test_reaches_the_optimum_of_a_linear_model(norm):
    """Over a ball inside the box, w.x is largest at a corner (L_inf) or in the direction of w (L_2)."""
    rng = np.random.default_rng(0)
    w, x = rng.standard_normal((2, 2, 1)), rng.uniform(0.4, 0.6, (3, 2, 2, 1))
    forward = lambda images, stats: (jnp.sum(images * w, (1, 2, 3)), stats)
    threat_model = make_threat_model(norm, 0.1)
    score = lambda outputs: outputs
    delta, _ = pgd_steps(
        forward, score, threat_model, x, jnp.zeros_like(x), 0.0, step_size=0.03, steps=20
    )
    optimum = 0.1 * (np.sign(w) if norm == "l_inf" else w / np.linalg.norm(w))
    np.testing.assert_allclose(delta, np.broadcast_to(optimum, x.shape), rtol=1e-5)


@pytest.fixture(scope="module")
def network():
    key = jax.random.key(1)
    classifier = make_classifier("wrn-10-1", 10, dtype="float64")
    params, batch_stats = classifier.init(key, (8, 8, 1))
    x = jax.random.uniform(key, (6, 8, 8, 1), jnp.float64)
    return classifier, params, batch_stats, x, jnp.arange(6)


@pytest.mark.parametrize("bn", ["train", "batch", "eval"])
def test_bn_modes_by_hand(network, bn):
    """Two steps match an explicit computation without `pgd_steps` and `forward_in_mode`."""
    classifier, params, batch_stats, x, y = network
    threat_model = make_threat_model("l_inf", 0.1)
    delta = start = jnp.full_like(x, 0.01)
    stats = batch_stats
    for _ in range(2):

        def loss(delta, stats=stats):
            if bn == "eval":
                return cross_entropy(classifier.eval(params, stats, x + delta), y).mean(), stats
            logits, moments = classifier.train(params, x + delta)
            return cross_entropy(logits, y).mean(), fold_moments(stats, moments)

        gradient, folded = jax.grad(loss, has_aux=True)(delta)
        stats = folded if bn == "train" else batch_stats
        delta = threat_model.project(delta + 0.03 * jnp.sign(gradient), x)

    ours, our_stats = pgd_steps(
        forward_in_mode(classifier, params, bn),
        lambda logits: cross_entropy(logits, y),
        threat_model,
        x,
        start,
        batch_stats,
        step_size=0.03,
        steps=2,
    )
    np.testing.assert_allclose(ours, delta, atol=1e-14)
    for a, b in zip(jax.tree.leaves(our_stats), jax.tree.leaves(stats), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


def test_a_step_computes_no_parameter_gradient(network):
    """A step costs two forward passes: its loop has no convolutions beyond those of input gradients."""
    classifier, params, batch_stats, x, y = network
    loss = lambda logits: cross_entropy(logits, y)
    attack = lambda x: pgd_steps(
        forward_in_mode(classifier, params, "eval"),
        loss,
        make_threat_model("l_inf", 0.1),
        x,
        jnp.zeros_like(x),
        batch_stats,
        step_size=0.03,
        steps=3,
    )
    count = lambda f, *args: jax.jit(f).lower(*args).as_text().count("stablehlo.convolution")
    assert count(attack, x) == 2 * count(lambda x: classifier.eval(params, batch_stats, x), x)


def test_what_has_no_derivative_or_is_nan_is_named():
    classes = lambda x: x.reshape(len(x), -1)[:, :3]
    host = lambda z: jax.pure_callback(np.asarray, jax.ShapeDtypeStruct(z.shape, z.dtype), z)
    x, y = jnp.full((2, 2, 2, 1), 0.5, jnp.float32), jnp.zeros(2, int)
    run = lambda logits_fn, **loss: pgd(
        logits_fn, x, y, make_threat_model("l_inf", 0.1), steps=1, step_size=0.1, **loss
    )
    with pytest.raises(InputError, match="^logits_fn= fails: ValueError"):
        run(lambda x: host(classes(x)))
    with pytest.raises(InputError, match="^logits_fn or loss= fails: ValueError"):
        run(classes, loss=lambda logits, y: host(logits)[:, 0])
    with pytest.raises(InputError, match="^logits_fn or loss has NaN or infinite values or gradi"):
        run(classes, loss=lambda logits, y: logits[:, 0] * jnp.nan)
