"""Gradients of several devices, summed as trees or as vectors, equal those of one device."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rwp_jax import make_weight_perturbation, perturb_and_differentiate
from rwp_jax.distributed.uncached import uncached

RNG = np.random.default_rng(0)
X = RNG.normal(size=(8, 4, 4, 3))
PARAMS = {
    "kernel": RNG.normal(size=(3, 3, 3, 5)),
    "bias": RNG.normal(size=5),
    "output": RNG.normal(size=(5, 2)),
    "temperature": np.float64(1.5),
}


def losses(params, x):
    hidden = jax.lax.conv_general_dilated(
        x, params["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    pooled = jnp.tanh(hidden + params["bias"]).mean((1, 2))
    return jnp.square(params["temperature"] * (pooled @ params["output"]) - 1).sum(-1)


def perturbed(params, x, axis_name=None, **settings):
    perturbation = make_weight_perturbation("rwp", gamma=0.1, steps=3, c_min=3.0, **settings)
    result = perturb_and_differentiate(
        lambda params: losses(params, x), params, perturbation, axis_name=axis_name
    )
    return result.v, result.gradient, result.steps


@pytest.mark.parametrize("devices", [2, 8])
@pytest.mark.parametrize(
    "settings", [{}, {"mask": lambda params: jax.tree.map(lambda _: True, params)}]
)
def test_devices_equal_one(devices, settings, programs_for):
    function = functools.partial(perturbed, axis_name="batch", **settings)
    mapped = jax.pmap(function, axis_name="batch", in_axes=(None, 0), out_axes=None)
    with uncached():
        shards = mapped(PARAMS, X.reshape(devices, -1, *X.shape[1:]))
    whole = jax.jit(functools.partial(perturbed, **settings))(PARAMS, X)
    assert whole[2] > 0
    assert jax.tree.structure(shards) == jax.tree.structure(whole)
    for one, other in zip(jax.tree.leaves(shards), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-13)


def test_dtypes_are_those_of_the_parameters(programs_for):
    """Parameters of several dtypes, as when BatchNorm stays in float32."""
    params = PARAMS | {"bias": np.float32(PARAMS["bias"])}
    function = functools.partial(perturbed, axis_name="batch")
    mapped = jax.pmap(function, axis_name="batch", in_axes=(None, 0), out_axes=None)
    with uncached():
        v, gradient, _ = mapped(params, X[:, None])
    for tree in v, gradient:
        assert {name: leaf.dtype for name, leaf in tree.items()} == {
            name: np.result_type(leaf) for name, leaf in params.items()
        }


def test_a_network_without_vectors(programs_for):
    x = RNG.normal(size=(8, 1, 4))
    only = lambda params, x: (
        perturb_and_differentiate(
            lambda params: jnp.square(x @ params).sum(-1),
            params,
            make_weight_perturbation("awp", gamma=0.1),
            axis_name="batch",
        ).gradient
    )
    mapped = jax.pmap(only, axis_name="batch", in_axes=(None, 0), out_axes=None)
    kernel = RNG.normal(size=(4, 2))
    with uncached():
        gradient = mapped(kernel, x)
    assert gradient.shape == kernel.shape and np.abs(gradient).min() > 0
