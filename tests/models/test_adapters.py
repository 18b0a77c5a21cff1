"""Linen and nnx modules with their own BatchNorm as classifiers."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from rwp_jax.errors import InputError
from rwp_jax.models.adapters import from_linen, from_nnx
from rwp_jax.models.classifier import MODELS, make_classifier, register_model

SHAPE = (6, 6, 2)


class LinenNet(nn.Module):
    num_classes: int
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, train):
        norm = functools.partial(
            nn.BatchNorm, use_running_average=not train, axis_name=self.axis_name
        )
        x = nn.relu(norm(momentum=0.8)(nn.Conv(4, (3, 3))(x)))
        x = nn.relu(norm(momentum=0.99)(nn.Conv(4, (3, 3), (2, 2))(x)))
        return nn.Dense(self.num_classes)(x.mean((1, 2)))


class NnxNet(nnx.Module):
    def __init__(self, num_classes, rngs, axis_name=None):
        norm = functools.partial(nnx.BatchNorm, rngs=rngs, axis_name=axis_name)
        self.convs = nnx.List(
            [nnx.Conv(2, 4, (3, 3), rngs=rngs), nnx.Conv(4, 4, (3, 3), rngs=rngs)]
        )
        self.norms = nnx.List([norm(4, momentum=0.8), norm(4, momentum=0.99)])
        self.head = nnx.Linear(4, num_classes, rngs=rngs)

    def __call__(self, x):
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = nnx.relu(norm(conv(x)))
        return self.head(x.mean((1, 2)))


def build(builder, **keywords):
    return builder(3, **({"dtype": "float64", "axis_name": None} | keywords))


@pytest.fixture
def images(key):
    return jax.random.uniform(key, (8, *SHAPE), jnp.float64)


@pytest.mark.parametrize("builder", [from_linen(LinenNet), from_nnx(NnxNet)])
def test_moments_fold_as_the_module_folds_them(builder, images, key):
    classifier = build(builder)
    params, batch_stats = classifier.init(key, SHAPE)
    logits, moments = jax.jit(classifier.train)(params, images)
    folded = classifier.fold(classifier.fold(batch_stats, moments), moments)

    if builder.args[0] is LinenNet:
        module, variables = LinenNet(3), {"params": params, "batch_stats": batch_stats}
        for _ in range(2):
            theirs, updated = module.apply(variables, images, train=True, mutable=["batch_stats"])
            variables |= updated
        running, evaluated = variables["batch_stats"], module.apply(variables, images, train=False)
    else:
        module = NnxNet(3, nnx.Rngs(0))
        graph, *templates = nnx.split(module, nnx.Param, nnx.BatchStat)
        states = [
            jax.tree.unflatten(jax.tree.structure(template), list(flat.values()))
            for template, flat in zip(templates, (params, batch_stats), strict=True)
        ]
        module = nnx.merge(graph, *states)
        module.train()
        theirs, _ = module(images), module(images)
        running = nnx.state(module, nnx.BatchStat)
        module.eval()
        evaluated = module(images)
    np.testing.assert_allclose(logits, theirs, rtol=1e-12)
    for ours, expected in zip(jax.tree.leaves(folded), jax.tree.leaves(running), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-12)
    np.testing.assert_allclose(classifier.eval(params, folded, images), evaluated, rtol=1e-12)


@pytest.mark.parametrize("builder", [from_linen(LinenNet), from_nnx(NnxNet)])
def test_moments_are_those_of_all_devices(builder, images, key):
    classifier, shared = build(builder), build(builder, axis_name="batch")
    params, batch_stats = classifier.init(key, SHAPE)

    def fold_over(train, fold):
        return lambda images: (lambda out: (out[0], fold(batch_stats, out[1])))(
            train(params, images)
        )

    logits, folded = fold_over(classifier.train, classifier.fold)(images)
    parts = images.reshape(4, 2, *SHAPE)
    theirs, over = jax.vmap(fold_over(shared.train, shared.fold), axis_name="batch")(parts)
    np.testing.assert_allclose(theirs.reshape(8, 3), logits, rtol=1e-10)
    for ours, expected in zip(jax.tree.leaves(over), jax.tree.leaves(folded), strict=True):
        np.testing.assert_allclose(ours, np.stack([expected] * 4), rtol=1e-10)


def test_a_module_without_statistics(images, key):
    class Plain(nn.Module):
        num_classes: int

        @nn.compact
        def __call__(self, x, train):
            return nn.Dense(self.num_classes)(x.reshape(len(x), -1))

    classifier = build(from_linen(Plain), axis_name="batch")
    params, batch_stats = classifier.init(key, SHAPE)
    _, moments = jax.vmap(lambda x: classifier.train(params, x), axis_name="batch")(images[:, None])
    assert not jax.tree.leaves(classifier.fold(batch_stats, moments))


def test_bfloat16_and_shared_moments_need_a_module_that_takes_them(images, key):
    alone = from_linen(lambda num_classes: LinenNet(num_classes))
    with pytest.raises(InputError, match="dtype='bfloat16' needs a module that takes dtype"):
        build(alone, dtype="bfloat16")
    classifier = build(alone, axis_name="batch")
    params, _ = classifier.init(key, SHAPE)
    with pytest.raises(InputError, match="axis_name='batch' needs a module that takes axis_name"):
        jax.vmap(lambda x: classifier.train(params, x), axis_name="batch")(images[:, None])


def test_registered_networks_are_built_by_name(images, key, monkeypatch):
    monkeypatch.setattr(MODELS, "_builders", dict(MODELS._builders))
    monkeypatch.setattr(MODELS, "_origins", {})
    register_model("tiny", from_linen(LinenNet))
    register_model("tiny", from_linen(LinenNet))  # again, as if its module ran twice
    classifier = make_classifier("tiny", 3, (0.5, 0.5), (0.2, 0.2))
    params, batch_stats = classifier.init(key, SHAPE)
    plain = build(from_linen(LinenNet), dtype="float32")
    np.testing.assert_allclose(
        classifier.eval(params, batch_stats, images),
        plain.eval(params, batch_stats, (images - 0.5) / 0.2),
        rtol=1e-4,
    )
    assert MODELS.origin("tiny").module == __name__
    with pytest.raises(InputError, match=r"'tinny' is not a known model: .*tiny \(registered\)"):
        make_classifier("tinny", 3)
    with pytest.raises(InputError, match="name='preactresnet18' is taken: it is the package's own"):
        register_model("preactresnet18", from_linen(LinenNet))
    with pytest.raises(InputError, match="name='wrn-28-10' is taken: names like it"):
        register_model("wrn-28-10", from_linen(LinenNet))
    with pytest.raises(InputError, match="builder=3 must be a function"):
        register_model("three", 3)


class Wide(NnxNet):
    def __init__(self, num_classes, rngs, axis_name=None, momentum=0.5):
        super().__init__(num_classes, rngs, axis_name)
        self.norms[0].momentum = momentum


@pytest.mark.parametrize("builder", [from_nnx(functools.partial(Wide, momentum=0.7))])
def test_a_partial_of_a_class_will_do(builder, images, key):
    classifier = build(builder)
    params, batch_stats = classifier.init(key, SHAPE)
    decay = classifier.train(params, images)[1][1]
    assert decay["norms.0.mean.value"] == pytest.approx(0.7) or 0.7 in jax.tree.leaves(
        jax.tree.map(lambda leaf: round(float(leaf.ravel()[0]), 6), decay)
    )


class Standardised(nn.Module):
    """Divides weights by their norm, which fails for weights of zero and, if centred, of one."""

    num_classes: int
    centred: bool = False

    @nn.compact
    def __call__(self, x, train):
        kernel = self.param("kernel", nn.initializers.normal(), (72, 8))
        if self.centred:
            kernel -= kernel.mean(0)
        x = x.reshape(len(x), -1) @ (kernel / jnp.linalg.norm(kernel, axis=0))
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
        return nn.Dense(self.num_classes)(x)


@pytest.mark.parametrize("centred", [False, True])
def test_weights_that_must_not_be_zero(centred, images, key):
    classifier = build(from_linen(functools.partial(Standardised, centred=centred)))
    params, _ = classifier.init(key, SHAPE)
    decay = classifier.train(params, images)[1][1]
    np.testing.assert_allclose(jax.tree.leaves(decay), 0.9, rtol=1e-12)
