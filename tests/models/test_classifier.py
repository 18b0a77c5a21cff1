import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rwp_jax.errors import InputError
from rwp_jax.models.classifier import make_classifier
from rwp_jax.models.layers import fold_moments


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    ("name", "parameters"),  # PyTorch's counts, from tests/fixtures/parity/cases.json
    [
        ("preactresnet18", 11172170),
        ("wrn-10-1", 77850),
        ("wrn-16-2", 691674),
        ("wrn-28-10", 36479194),
        ("wrn-34-10", 46160474),
    ],
)
def test_number_of_parameters(name, parameters, key):
    classifier = make_classifier(name, 10)
    params, _ = jax.eval_shape(lambda k: classifier.init(k, (32, 32, 3)), key)
    assert count(params) == parameters


@pytest.mark.parametrize("name", ["wrn-11-1", "wrn-4-1", "wrn-10-0", "wrn-1006-1", "wrn-10-101"])
def test_networks_that_there_are_not(name):
    with pytest.raises(InputError, match=f"name='{name}' is not a known model"):
        make_classifier(name, 10)


@pytest.mark.parametrize("name", ["preactresnet18", "wrn-10-1"])
@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 20, 3)])
def test_any_input_size_channels_and_classes(name, shape, key):
    classifier = make_classifier(name, 7)
    params, batch_stats = classifier.init(key, shape)
    images = jnp.zeros((2, *shape))
    assert jax.eval_shape(classifier.eval, params, batch_stats, images).shape == (2, 7)
    logits, moments = jax.eval_shape(classifier.train, params, images)
    assert logits.shape == (2, 7)
    assert jax.tree.structure(moments) == jax.tree.structure(batch_stats)


@pytest.mark.parametrize(
    ("dtype", "stored"), [("float32", "float32"), ("bfloat16", "float32"), ("float64", "float64")]
)
def test_dtypes(dtype, stored, key):
    classifier = make_classifier("wrn-10-1", 10, dtype=dtype)
    params, batch_stats = classifier.init(key, (8, 8, 1))
    logits, moments = classifier.train(params, jnp.zeros((2, 8, 8, 1)))
    dtypes = {leaf.dtype for leaf in jax.tree.leaves((params, batch_stats, moments, logits))}
    assert dtypes == {jnp.dtype(stored)}


def test_bfloat16_computes_in_bfloat16(key):
    """Low precision must change the logits, but only slightly."""
    images = jax.random.uniform(key, (4, 8, 8, 1), jnp.float32)
    params, _ = make_classifier("wrn-10-1", 10).init(key, (8, 8, 1))
    exact, low = (
        make_classifier("wrn-10-1", 10, dtype=d).train(params, images)[0]
        for d in ("float32", "bfloat16")
    )
    assert 1e-4 < np.abs(exact - low).max() < 0.1


def test_normalisation_belongs_to_the_model(key):
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
    with_it = make_classifier("wrn-10-1", 10, mean, std, dtype="float64")
    without = make_classifier("wrn-10-1", 10, dtype="float64")
    params, batch_stats = with_it.init(key, (8, 8, 3))
    images = jax.random.uniform(key, (4, 8, 8, 3), jnp.float64)
    np.testing.assert_allclose(
        with_it.eval(params, batch_stats, images),
        without.eval(params, batch_stats, (images - np.array(mean)) / np.array(std)),
        rtol=1e-12,
    )


def test_running_statistics_are_pytorchs(key):
    """One fold from (0, 1) gives 0.1 mean and 0.9 + 0.1 unbiased variance of the first BN's input."""
    classifier = make_classifier("wrn-10-1", 10, dtype="float64")
    params, batch_stats = classifier.init(key, (8, 8, 1))
    images = jax.random.uniform(key, (3, 8, 8, 1), jnp.float64)
    folded = fold_moments(batch_stats, classifier.train(params, images)[1])["block1_0"]["bn1"]
    kernel = np.asarray(params["conv1"]["kernel"])
    padded = np.pad(np.asarray(images), ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    activations = np.einsum("nhwcij,ijco->nhwo", windows, kernel).reshape(-1, 16)
    np.testing.assert_allclose(folded["mean"], 0.1 * activations.mean(0), rtol=1e-10, atol=1e-15)
    np.testing.assert_allclose(folded["var"], 0.9 + 0.1 * activations.var(0, ddof=1), rtol=1e-10)


def test_initialisation_is_pytorchs(key):
    preact, _ = make_classifier("preactresnet18", 10).init(key, (32, 32, 3))
    kernel = preact["layer3_1"]["conv1"]["kernel"]  # U(+-1/sqrt(fan_in))
    bound = (3 * 3 * 256) ** -0.5
    assert 0.999 * bound < np.abs(kernel).max() <= bound
    np.testing.assert_allclose(kernel.std(), bound / 3**0.5, rtol=0.01)
    assert 0 < np.abs(preact["linear"]["bias"]).max() <= 512**-0.5

    wide, _ = make_classifier("wrn-10-4", 10).init(key, (32, 32, 3))
    kernel = wide["block3_0"]["conv1"]["kernel"]  # N(0, 2/fan_out), 128 -> 256 features
    np.testing.assert_allclose(kernel.std(), (2 / (3 * 3 * 256)) ** 0.5, rtol=0.01)
    assert np.abs(kernel).max() > 3.5 * kernel.std(), "must not be truncated"
    assert not wide["linear"]["bias"].any()
    assert np.abs(wide["linear"]["kernel"]).max() <= 256**-0.5


@pytest.mark.parametrize("name", ["resnet50", "wrn-11-2", "wrn-28", "wrn-4-1", "wrn-10-0", ""])
def test_unknown_names_are_refused(name):
    with pytest.raises(InputError, match="preactresnet18 or wrn-DEPTH-WIDTH"):
        make_classifier(name, 10)


def test_images_of_other_channels_than_the_normalisation_are_refused(key):
    """Without the check, grey images would be broadcast to three channels."""
    classifier = make_classifier("wrn-10-1", 10, (0.5,) * 3, (0.25,) * 3)
    params, batch_stats = classifier.init(key, [8, 8, 3])
    for channels in (1, 2):
        grey = jnp.zeros((2, 8, 8, channels), jnp.float32)
        with pytest.raises(InputError, match=f"images= have {channels} channels, mean= and std="):
            classifier.eval(params, batch_stats, grey)
        with pytest.raises(InputError, match=f"images= have {channels} channels, mean= and std="):
            classifier.train(params, grey)
