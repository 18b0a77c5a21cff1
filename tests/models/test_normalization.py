"""BatchNorm fused with its activation: values, gradients and moments equal the formula's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rwp_jax.models.moments import batch_moments, sums_in_parts, sums_separately, sums_together
from rwp_jax.models.normalization import normalize, normalize_by_batch, relu, silu

EPSILON = 1e-5
ACTIVATIONS = {"relu": relu, "silu": silu, "none": lambda z: z}
PLAIN = ACTIVATIONS | {"relu": jax.nn.relu, "silu": lambda z: z / (1 + jnp.exp(-z))}


def formula(x, scale, bias, mean, var, activation):
    return activation((x - mean) / jnp.sqrt(var + EPSILON) * scale + bias)


def by_batch(x, scale, bias, activation):
    return formula(x, scale, bias, x.mean((0, 1, 2)), x.var((0, 1, 2)), activation)


@pytest.fixture
def arguments():
    """Returns x [8, 3, 3, 5], scale, bias, mean, var [5]; one value is exactly 0 before the activation."""
    rng = np.random.default_rng(0)
    x = rng.normal(2, 3, (8, 3, 3, 5))
    scale, bias, mean = rng.normal(size=(3, 5))
    bias[0], x[0, 0, 0, 0] = 0, mean[0]
    return tuple(map(jnp.asarray, (x, scale, bias, mean, rng.uniform(1, 2, 5))))


def gradients(function, arguments):
    """Returns the gradients of a weighted sum of the function's values with respect to all arguments."""
    weights = jnp.asarray(np.random.default_rng(1).normal(size=arguments[0].shape))
    total = lambda *arguments: (weights * function(*arguments)).sum()
    return jax.grad(total, tuple(range(len(arguments))))(*arguments)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_running_statistics(name, arguments):
    ours = lambda *a: normalize(*a, ACTIVATIONS[name], EPSILON)
    theirs = lambda *a: formula(*a, PLAIN[name])
    np.testing.assert_allclose(ours(*arguments), theirs(*arguments), rtol=1e-11, atol=1e-13)
    for one, other in zip(gradients(ours, arguments), gradients(theirs, arguments), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_moments_of_the_batch(name, arguments):
    arguments = arguments[:3]
    ours = lambda *a: normalize_by_batch(*a, ACTIVATIONS[name], EPSILON, None)[0]
    theirs = lambda *a: by_batch(*a, PLAIN[name])
    np.testing.assert_allclose(ours(*arguments), theirs(*arguments), rtol=1e-11, atol=1e-13)
    for one, other in zip(gradients(ours, arguments), gradients(theirs, arguments), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)
    _, mean, var = normalize_by_batch(*arguments, ACTIVATIONS[name], EPSILON, None)
    np.testing.assert_allclose(mean, arguments[0].mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(var, arguments[0].var((0, 1, 2)), rtol=1e-12)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_moments_of_all_devices(name, arguments, programs_for):
    x, scale, bias = arguments[:3]
    x = x + 50 * jnp.arange(8)[:, None, None, None]  # differs more between devices than within
    weights = jnp.asarray(np.random.default_rng(1).normal(size=x.shape))

    @functools.partial(jax.pmap, axis_name="i", in_axes=(0, None, None, 0))
    def ours(x, scale, bias, weights):
        def total(*arguments):
            values, *moments = normalize_by_batch(*arguments, ACTIVATIONS[name], EPSILON, "i")
            return (weights * values).sum(), (values, moments)

        found, aux = jax.grad(total, (0, 1, 2), has_aux=True)(x, scale, bias)
        return found[0], jax.lax.psum(found[1:], "i"), aux

    each = lambda array: array[:, None]  # one example per device
    dx, sums, (values, moments) = ours(each(x), scale, bias, each(weights))
    (dx, values), (dscale, dbias), moments = (
        (dx[:, 0], values[:, 0]),
        [total[0] for total in sums],
        [moment[0] for moment in moments],
    )
    theirs = lambda *a: by_batch(*a, PLAIN[name])
    np.testing.assert_allclose(values, theirs(x, scale, bias), rtol=1e-10, atol=1e-12)
    expected = gradients(theirs, (x, scale, bias))
    for one, other in zip((dx, dscale, dbias), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(moments[0], x.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(moments[1], x.var((0, 1, 2)), rtol=1e-12)


def check_float32_moments(mean, var, x):
    """Compares moments [C] of x [..., C] with two-pass moments in float64."""
    wide = np.float64(x).reshape(-1, x.shape[-1])
    std = wide.std(0)
    assert (np.abs(mean - wide.mean(0)) <= 1e-6 * (np.abs(wide.mean(0)) + std)).all()
    np.testing.assert_allclose(var, std**2, rtol=1e-6)


@pytest.mark.parametrize("distance", [0, 1, 10, 100])
@pytest.mark.parametrize("shape", [(128, 8, 8, 16), (16, 32, 32, 8)])
def test_float32_moments_far_from_zero(shape, distance):
    """With a mean `distance` standard deviations from zero, moments equal two-pass moments in float64."""
    rng = np.random.default_rng(distance)
    x = np.float32(rng.normal(distance, 1, shape) * rng.uniform(0.1, 10, shape[-1]))
    _, mean, var = jax.jit(
        functools.partial(normalize_by_batch, activation=relu, epsilon=EPSILON, axis_name=None)
    )(x, np.ones(shape[-1], np.float32), np.zeros(shape[-1], np.float32))
    check_float32_moments(mean, var, x)


@pytest.mark.parametrize("distance", [0, 1, 10, 100])
@pytest.mark.parametrize("shape", [(128, 4, 4, 512), (16, 4, 4, 512), (16, 2, 2, 4096)])
def test_float32_moments_of_many_channels(shape, distance, programs_for):
    """Among many channels, some estimates of the mean are poor."""
    rng = np.random.default_rng(distance)
    x = np.float32(rng.normal(distance, 1, shape) * rng.uniform(0.1, 10, shape[-1]))
    mean, var = jax.jit(lambda x: batch_moments(x, jnp.float32, None))(x)
    check_float32_moments(mean, var, x)


@pytest.mark.parametrize("distance", [0, 10, 100])
def test_float32_moments_of_devices_far_from_zero(distance, programs_for):
    """As above, on eight devices whose means differ by up to two standard deviations."""
    rng = np.random.default_rng(distance)
    apart = rng.uniform(-1, 1, (8, 1, 1, 1, 512))
    x = rng.normal(distance, 1, (8, 16, 4, 4, 512)) + apart
    x = np.float32(x * rng.uniform(0.1, 10, 512))
    moments = jax.pmap(lambda x: batch_moments(x, jnp.float32, "i"), axis_name="i")
    mean, var = (moment[0] for moment in moments(x))
    check_float32_moments(mean, var, x)


def test_bfloat16_activations_have_float32_moments():
    x = jnp.asarray(np.random.default_rng(0).normal(3, 1, (64, 8, 8, 4)), jnp.bfloat16)
    ones = jnp.ones(4, jnp.float32)
    values, mean, var = normalize_by_batch(x, ones, 0 * ones, relu, EPSILON, None)
    assert (values.dtype, mean.dtype, var.dtype) == (jnp.bfloat16, jnp.float32, jnp.float32)
    np.testing.assert_allclose(mean, np.float64(x).mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(var, np.float64(x).var((0, 1, 2)), rtol=1e-6)


@pytest.mark.parametrize("way", [sums_separately, sums_together, sums_in_parts])
@pytest.mark.parametrize("shape", [(128, 4, 4, 512), (16, 32, 32, 64), (7, 3, 3, 5), (2, 1, 1, 3)])
def test_sums_of_every_platform(way, shape):
    one, two = np.random.default_rng(0).normal(size=(2, *shape))
    sums = jax.jit(way)(one, two)
    np.testing.assert_allclose(sums, [one.sum((0, 1, 2)), two.sum((0, 1, 2))], rtol=1e-9, atol=1e-9)


def test_sums_in_parts_are_stacked_above_other_rows():
    one, two = np.random.default_rng(0).normal(size=(2, 16, 8, 8, 5))
    row = np.arange(5.0)
    stacked = sums_in_parts(one, two, row, stacked=True)
    np.testing.assert_allclose(stacked, [one.sum((0, 1, 2)), two.sum((0, 1, 2)), row], rtol=1e-9)


def test_relu_is_that_of_pytorch_in_its_derivative_too():
    """The derivative is 0 at 0 and 1 for any positive value; the second derivative is 0."""
    tiny = jnp.finfo(jnp.float64).tiny
    z = jnp.asarray([-2.0, 0.0, tiny, 3.0])
    np.testing.assert_array_equal(relu(z), [0, 0, tiny, 3])
    np.testing.assert_array_equal(jax.vmap(jax.grad(relu))(z), [0, 0, 1, 1])
    np.testing.assert_array_equal(jax.vmap(jax.grad(jax.grad(relu)))(z), np.zeros(4))


def test_silu_keeps_its_derivative_where_its_exponential_overflows():
    z = jnp.asarray([-1000.0, -50.0, 0.0, 50.0, 1000.0])
    sigmoid = jnp.asarray([0, 1 / (1 + jnp.exp(50.0)), 0.5, 1, 1])
    np.testing.assert_allclose(silu(z), z * sigmoid, rtol=1e-14)
    slopes = sigmoid * (1 + z * (1 - sigmoid))
    np.testing.assert_allclose(jax.vmap(jax.grad(silu))(z), slopes, rtol=1e-12)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_only_the_input_is_saved_for_the_gradient(name, arguments):
    """Masks, derivatives and normalised values are recomputed: no other array of its size is kept."""
    ours = lambda *a: normalize_by_batch(*a, ACTIVATIONS[name], EPSILON, None)[0]
    _, pullback = jax.vjp(ours, *arguments[:3])
    kept = [leaf for leaf in jax.tree.leaves(pullback) if np.size(leaf) == arguments[0].size]
    assert len(kept) == 1
    np.testing.assert_array_equal(kept[0], arguments[0])
