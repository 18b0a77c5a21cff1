"""The checks behind AutoAttack's warnings, one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rwp_jax.attacks.autoattack import ApgdCE, ApgdLoss, ApgdT, AutoAttackWarning, FabT, Square
from rwp_jax.attacks.autoattack.doubts import about_backward, no_gradient
from rwp_jax.attacks.autoattack.forward import Forward
from rwp_jax.attacks.autoattack.interaction import _changes, impurity, interaction, unused_key
from rwp_jax.attacks.autoattack.model import make_model
from rwp_jax.errors import InputError
from rwp_jax.losses import cross_entropy
from tests.attacks.small_networks import SHAPE, images, labels, network, quick


def prepared(logits_fn, x, randomized=False):
    model = make_model(logits_fn, x.shape[1:], randomized)
    return model, Forward(model, jax.random.key(0), 8)


@pytest.mark.parametrize(
    "disguise",
    [
        lambda z: jnp.concatenate([z, jnp.full((len(z), 1), -1e9)], 1),
        lambda z: 0.05 * z - 1200,
        lambda z: z.astype(jnp.float8_e4m3fn).astype(jnp.float32),
    ],
    ids=["a class masked out", "a common offset", "low precision"],
)
def test_what_could_hide_that_examples_interact(disguise):
    logits_fn, x = network(), images(6)
    centred = lambda x: logits_fn(x - x.mean(0, keepdims=True) + 0.5)
    for inner, count in ((centred, 1), (logits_fn, 0)):
        model, forward = prepared(lambda x, inner=inner: disguise(inner(x)), x)
        assert len(list(interaction(model, forward, x, forward(x)))) == count


def test_nan_in_another_batch_only_is_a_change():
    z = np.arange(12.0).reshape(3, 4) ** 2
    found = z.copy()
    found[1, 2] = np.nan
    np.testing.assert_array_equal(_changes(found, z), [0, np.inf, 0])
    np.testing.assert_array_equal(_changes(z[:2], z), [0, 0])


def test_a_key_that_is_not_used(key):
    logits_fn, x = network(), images(6)
    frozen = lambda x, _: logits_fn(x + 0.1 * jax.random.normal(key, x.shape))
    fresh = lambda x, key: logits_fn(x + 0.1 * jax.random.normal(key, x.shape))
    _, forward = prepared(frozen, x, randomized=True)
    (message,) = unused_key(forward, x)
    assert "is the key used?" in message and forward.calls == 0, (
        "verdicts draw as without the check"
    )
    assert list(unused_key(prepared(fresh, x, randomized=True)[1], x)) == []


def test_doubts_about_the_function_of_the_backward_pass():
    logits_fn, x, rng = network(), images(6), np.random.default_rng(0)
    y = labels(logits_fn, x)
    centred = lambda x: logits_fn(x - x.mean(0, keepdims=True) + 0.5)
    with pytest.warns(AutoAttackWarning):
        (message,) = quick(logits_fn, x, y, "l_inf", 0.05, gradient_fn=centred).warnings
    assert (
        message.startswith("gradient_fn: the logits of an image depend") and "gradients" in message
    )
    noisy = lambda x: logits_fn(x) + rng.standard_normal(5)
    (message,) = about_backward(noisy, x, False, 8)
    assert message.startswith("gradient_fn is not pure")
    (message,) = impurity(lambda x, key: noisy(x), SHAPE, randomized=True)
    assert message.startswith("logits_fn is not pure")
    host = lambda x: jax.pure_callback(
        lambda x: np.asarray(logits_fn(x)), jax.ShapeDtypeStruct((len(x), 5), jnp.float32), x
    )
    with pytest.raises(InputError, match="^gradient_fn= fails: ValueError"):
        quick(logits_fn, x, y, "l_inf", 0.05, gradient_fn=host)


def test_a_loss_of_the_batch_is_refused():
    loss = lambda logits, y: jax.nn.log_softmax(cross_entropy(logits, y))
    with pytest.raises(
        InputError, match="^function= gives an example another loss when the others"
    ):
        ApgdLoss(function=loss).check(5)


def test_a_network_without_a_gradient():
    logits_fn, x = network(), images(6)
    y = labels(logits_fn, x)
    stepwise = lambda x: 10 * jax.nn.one_hot(logits_fn(x).argmax(-1), 5)
    warned = lambda inner, *attacks: list(no_gradient(prepared(inner, x)[0], attacks, x, y, 8))
    (message,) = warned(stepwise, ApgdCE(), FabT())
    assert message.startswith("the gradient is zero for 6 of 6 correctly classified images")
    assert warned(logits_fn, ApgdCE()) == warned(stepwise, Square()) == []
    assert warned(stepwise, ApgdCE(), ApgdT()) == [], "APGD-T tells of zero gradients itself"
