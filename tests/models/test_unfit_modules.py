"""Modules that cannot become a classifier are refused with the reason."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from rwp_jax.errors import InputError
from rwp_jax.models.adapters import from_linen, from_nnx
from tests.models.test_adapters import SHAPE, LinenNet, NnxNet, build


@pytest.fixture
def images(key):
    return jax.random.uniform(key, (8, *SHAPE), jnp.float64)


class NoTrain(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, x):
        return x


class Counts(LinenNet):
    @nn.compact
    def __call__(self, x, train):
        self.variable("counts", "calls", jnp.zeros, ())
        return nn.Dense(self.num_classes)(x.mean((1, 2)))


class Dropping(LinenNet):
    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(self.num_classes)(nn.Dropout(0.5, deterministic=not train)(x.mean((1, 2))))


class Wrong(LinenNet):
    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(7)(x.mean((1, 2)))


class Largest(LinenNet):
    @nn.compact
    def __call__(self, x, train):
        largest = self.variable("batch_stats", "largest", jnp.zeros, ())
        if train:
            largest.value = jnp.maximum(largest.value, x.max() + 1.5)
        return nn.Dense(self.num_classes)(x.mean((1, 2)))


class Unstable(LinenNet):
    """Its running statistic grows with every forward pass, or alternates in sign."""

    factor: float = 1.5

    @nn.compact
    def __call__(self, x, train):
        mean = self.variable("batch_stats", "mean", jnp.zeros, ())
        if train:
            mean.value = self.factor * mean.value + x.mean()
        return nn.Dense(self.num_classes)(x.mean((1, 2)))


class Clipped(LinenNet):
    @nn.compact
    def __call__(self, x, train):
        mean = self.variable("batch_stats", "mean", jnp.zeros, ())
        if train:
            mean.value = jnp.clip(0.9 * mean.value + 0.1 * x.mean(), -10, 10)
        return nn.Dense(self.num_classes)(x.mean((1, 2)))


class Alone(LinenNet):
    axis_name = None

    def __init__(self, num_classes):
        pass


class WrongInTraining(LinenNet):
    @nn.compact
    def __call__(self, x, train):
        logits = nn.Dense(self.num_classes)(x.mean((1, 2)))
        return logits[:, :1] if train else logits


class Pair(LinenNet):
    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(self.num_classes)(x.mean((1, 2))), x


class Narrow(LinenNet):
    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(self.num_classes)(x.reshape(len(x), 8))


class Frozen(LinenNet):
    @nn.compact
    def __call__(self, x, train):
        x = nn.BatchNorm(use_running_average=True)(x)
        return nn.Dense(self.num_classes)(x.mean((1, 2)))


class Renormalised(LinenNet):
    @nn.compact
    def __call__(self, x, train):
        mean = self.variable("batch_stats", "mean", jnp.zeros, x.shape[-1:])
        batch = x.mean((0, 1, 2))
        x = x - (mean.value + batch) / 2
        if train:
            mean.value = 0.9 * mean.value + 0.1 * batch
        return nn.Dense(self.num_classes)((x**2).mean((1, 2)))


class Spectral(LinenNet):
    @nn.compact
    def __call__(self, x, train):
        return nn.SpectralNorm(nn.Dense(self.num_classes))(x.mean((1, 2)), update_stats=train)


class SpectralAndBatchNorm(LinenNet):
    @nn.compact
    def __call__(self, x, train):
        x = nn.SpectralNorm(nn.Conv(4, (3, 3)))(x, update_stats=train)
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
        return nn.Dense(self.num_classes)(x.mean((1, 2)))


class FirstBatchAlone(LinenNet):
    @nn.compact
    def __call__(self, x, train):
        seen = self.variable("batch_stats", "seen", jnp.zeros, ())
        x = jnp.where(seen.value == 0, x - x.mean((0, 1, 2)), x)
        if train:
            seen.value = 0.9 * seen.value + 0.1
        return nn.Dense(self.num_classes)((x**2).mean((1, 2)))


class DroppingAlways(LinenNet):
    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(self.num_classes)(nn.Dropout(0.5, deterministic=False)(x.mean((1, 2))))


class BatchMomentsAlways(LinenNet):
    @nn.compact
    def __call__(self, x, train):
        x = nn.BatchNorm(use_running_average=False)(x)
        return nn.Dense(self.num_classes)(x.mean((1, 2)))


class NnxSpectral(nnx.Module):
    def __init__(self, num_classes, rngs):
        self.norm = nnx.SpectralNorm(nnx.Linear(2, num_classes, rngs=rngs), rngs=rngs)

    def __call__(self, x):
        return self.norm(x.mean((1, 2)))


class NnxNoRngs(nnx.Module):
    def __init__(self, num_classes):
        pass


class NnxDropping(NnxNet):
    def __init__(self, num_classes, rngs):
        super().__init__(num_classes, rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)


@pytest.mark.parametrize(
    ("builder", "message"),
    [
        (from_linen(NoTrain), "make_module=NoTrain: its __call__ must take train"),
        (from_linen(Counts), "make_module=Counts: it keeps counts in addition to"),
        (from_linen(Dropping), "make_module=Dropping: the module draws random numbers"),
        (
            from_linen(Wrong),
            r"logits of 2 images while evaluating have shape \(2, 7\), must .* \(2, 3\)",
        ),
        (from_linen(WrongInTraining), r"logits of 2 images while training have shape \(2, 1\)"),
        (from_linen(Pair), "logits of 2 images while evaluating have a tuple"),
        (from_linen(Frozen), "make_module=Frozen: its logits while training depend on its running"),
        (from_linen(Renormalised), "its logits while training depend on its running statistics"),
        (from_linen(Spectral), "its logits while training depend on its running statistics"),
        (from_linen(SpectralAndBatchNorm), "its logits while training depend on its running"),
        (from_linen(FirstBatchAlone), "its logits while training depend on its running"),
        (from_nnx(NnxSpectral), "make_module=NnxSpectral"),
        (from_linen(DroppingAlways), "make_module=DroppingAlways: the module draws random numbers"),
        (
            from_linen(BatchMomentsAlways),
            "make_module=BatchMomentsAlways fails .*ModifyScopeVariable",
        ),
        (from_linen(Narrow), r"make_module=Narrow fails on images \[B, 6, 6, 2\]: .* reshape"),
        (from_linen(nn.Dense), "make_module=Dense cannot be called: .* 'num_classes'"),
        (from_linen(LinenNet(3)), "make_module=LinenNet cannot be called"),
        (from_linen(lambda num_classes: num_classes), "makes a int, must make a linen.Module"),
        (from_nnx(NnxNoRngs), "make_module=NnxNoRngs cannot be called: .* 'rngs'"),
        (from_nnx(LinenNet), "make_module=LinenNet"),
        (from_linen(Largest), "its running statistics are not moving averages"),
        (from_linen(Clipped), "its running statistics are not moving averages"),
        (from_linen(Unstable), r"multiplies its running statistics by 1.5, .* in \[0, 1\]"),
        (from_linen(functools.partial(Unstable, factor=-0.5)), "running statistics by -0.5"),
        (from_nnx(NnxDropping), "NnxDropping: it keeps dropout.* in addition to nnx.Param"),
    ],
)
@pytest.mark.parametrize("dtype", ["float64", "float32"])  # each shows what the other hides
def test_what_does_not_fit_is_named(builder, message, dtype, images, key):
    with pytest.raises(InputError, match=message):
        classifier = build(builder, dtype=dtype)
        params, _ = classifier.init(key, SHAPE)
        classifier.train(params, images.astype(dtype))


@pytest.mark.parametrize("make", [from_linen, from_nnx])
@pytest.mark.parametrize("module", [None, 3, "linen.Dense"])
def test_what_cannot_be_called_is_refused_at_once(make, module):
    with pytest.raises(InputError, match=f"make_module={module!r} must be a class or a function"):
        make(module)
