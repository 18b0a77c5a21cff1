"""DM networks, and activation and BatchNorm momentum of all the package's networks.

tests/pytorch/test_dm_networks.py compares their numbers with networks in PyTorch.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rwp_jax.errors import InputError
from rwp_jax.models.classifier import MODELS, make_classifier, register_model
from rwp_jax.models.fingerprint import fingerprint
from rwp_jax.training.weight_perturbation import kernels
from tests.own_code import keep_registered

SHAPE = (8, 8, 1)


def shapes_of(name, image_shape=(32, 32, 3)):
    classifier = make_classifier(name, 10)
    return jax.eval_shape(lambda k: classifier.init(k, image_shape), jax.random.key(0))[0]


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("dm-preactresnet18", 12548426),  # recorded from RobustBench's class
        ("dm-wrn-10-1", 77850),
        ("dm-wrn-16-2", 691674),
        ("dm-wrn-28-10", 36479194),
        ("dm-wrn-34-20", 184531674),
        ("dm-wrn-70-16", 266796506),
    ],
)
def test_number_of_parameters(name, parameters):
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes_of(name))) == parameters


@pytest.mark.parametrize(("name", "convolutions"), [("dm-wrn-16-2", 16), ("dm-preactresnet18", 20)])
def test_every_kernel_is_perturbed_and_nothing_else(name, convolutions):
    params = shapes_of(name)
    chosen = jax.tree_util.tree_leaves_with_path(kernels(params))
    perturbed = [path[-1].key for path, is_perturbed in chosen if is_perturbed]
    assert perturbed == ["kernel"] * (convolutions + 1)
    assert {path[-1].key for path, is_perturbed in chosen if not is_perturbed} == {"bias", "scale"}


@pytest.mark.parametrize(
    "name", ["dm-wrn-11-1", "dm-wrn-4-1", "dm-wrn-10-0", "dm-wrn-10-101", "dm-"]
)
def test_networks_that_there_are_not(name):
    with pytest.raises(InputError, match="dm-preactresnet18 or dm-wrn-DEPTH-WIDTH"):
        make_classifier(name, 10)


def test_their_names_cannot_be_registered(monkeypatch):
    keep_registered(monkeypatch)
    for name in ("dm-wrn-28-10", "dm-preactresnet18"):
        with pytest.raises(InputError, match=f"name='{name}' is taken"):
            register_model(name, lambda num_classes, **_: None)


@pytest.mark.parametrize(
    ("name", "fitting", "other", "message"),
    [
        ("dm-wrn-10-1", (12, 4, 3), (30, 32, 3), "whose sides are multiples of 4, not 30x32"),
        ("dm-preactresnet18", (9, 11, 3), (32, 7, 3), "of at least 8x8, not 32x7"),
    ],
)
def test_sizes_of_images(name, fitting, other, message):
    classifier = make_classifier(name, 7)
    key = jax.random.key(0)
    params, batch_stats = jax.eval_shape(lambda key: classifier.init(key, fitting), key)
    images = jax.ShapeDtypeStruct((2, *fitting), jnp.float32)
    assert jax.eval_shape(classifier.eval, params, batch_stats, images).shape == (2, 7)
    with pytest.raises(InputError, match=f"name='{name}' needs images {message}"):
        classifier.init(key, other)
    with pytest.raises(InputError, match=message):
        jax.eval_shape(classifier.train, params, jax.ShapeDtypeStruct((2, *other), jnp.float32))


def test_an_activation_is_part_of_what_a_network_computes():
    digest = lambda name, activation: (
        fingerprint(make_classifier(name, 10, activation=activation), SHAPE).sha256
    )
    assert digest("wrn-10-1", "") == digest("wrn-10-1", "relu") != digest("wrn-10-1", "silu")
    assert digest("dm-wrn-10-1", "") == digest("dm-wrn-10-1", "silu")
    digests = {
        digest(name, act) for name in ("wrn-10-1", "dm-wrn-10-1") for act in ("relu", "silu")
    }
    assert len(digests) == 4


def test_the_momentum_is_pytorchs(key):
    """It is the weight of the batch's moments; the rest of the network does not depend on it."""
    usual, slow = (
        make_classifier("wrn-10-1", 10, dtype="float64", **changes)
        for changes in ({}, {"bn_momentum": 0.01})
    )
    params, batch_stats = usual.init(key, SHAPE)
    images = jax.random.uniform(key, (4, *SHAPE), jnp.float64)
    (logits, moments), (same, _) = usual.train(params, images), slow.train(params, images)
    np.testing.assert_array_equal(logits, same)
    for classifier, momentum in ((usual, 0.1), (slow, 0.01)):
        folded = classifier.fold(classifier.fold(batch_stats, moments), moments)
        expected = 1 - (1 - momentum) ** 2
        np.testing.assert_allclose(
            folded["bn"]["mean"], expected * moments["bn"]["mean"], rtol=1e-12
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"activation": "gelu"},
            "activation='gelu' must be relu or silu, or '' for the network's own",
        ),
        ({"activation": None}, "activation=None must be relu or silu"),
        ({"bn_momentum": 0.0}, r"bn_momentum=0.0 must be in \(0, 1\]"),
        ({"bn_momentum": 1.1}, r"bn_momentum=1.1 must be in \(0, 1\]"),
        ({"bn_momentum": float("nan")}, r"bn_momentum=nan must be in"),
        ({"bn_momentum": None}, r"bn_momentum=None must be in"),
    ],
)
def test_values_that_are_none(changes, message):
    with pytest.raises(InputError, match=message):
        make_classifier("dm-wrn-10-1", 10, **changes)


def test_registered_networks_have_their_own(monkeypatch):
    keep_registered(monkeypatch)
    register_model("mine", lambda num_classes, **common: make_classifier("wrn-10-1", num_classes))
    assert "mine" in MODELS and make_classifier("mine", 10, bn_momentum=0.1)
    with pytest.raises(
        InputError, match="activation='silu' is for the package's own networks: 'mine'"
    ):
        make_classifier("mine", 10, activation="silu")
    with pytest.raises(InputError, match=r"bn_momentum=0.2 is for .* own .leave bn_momentum=0.1"):
        make_classifier("mine", 10, bn_momentum=0.2)
