"""The convolution of every platform against XLA's own."""

import re

import flax.linen as nn
import jax
import numpy as np
import pytest
from flax import nnx
from jax import lax

import rwp_jax
from rwp_jax.models import convolution
from rwp_jax.models.convolution import conv2d

# (size, channels, features, kernel, stride), with images smaller than the kernel, odd sizes, strided 1x1.
SHAPES = [
    ((8, 8), 3, 5, 3, 1),
    ((8, 8), 4, 6, 3, 2),
    ((7, 9), 2, 3, 3, 2),
    ((8, 6), 4, 6, 1, 2),
    ((9, 9), 4, 2, 1, 1),
    ((2, 2), 3, 4, 3, 1),
    ((2, 2), 3, 4, 3, 2),
    ((1, 1), 3, 4, 3, 1),
]
# With zeros on both sides, and behind only.
PADDED = [(*shape, shape[3] // 2) for shape in SHAPES]
PADDED += [(*shape, (0, 1)) for shape in SHAPES if min(shape[0]) > 1]


def plain(stride, before, behind):
    """Returns XLA's convolution, differentiated by JAX."""
    return lambda images, weights: lax.conv_general_dilated(
        images,
        weights,
        (stride, stride),
        [(before, behind)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


@pytest.mark.parametrize(("size", "channels", "features", "kernel", "stride", "pad"), PADDED)
def test_values_and_gradients_equal_xla(size, channels, features, kernel, stride, pad):
    rng = np.random.default_rng(0)
    images = rng.standard_normal((5, *size, channels))
    weights = rng.standard_normal((kernel, kernel, channels, features))
    pads = (pad, pad) if isinstance(pad, int) else pad
    ours, our_pullback = jax.vjp(lambda x, w: conv2d(x, w, stride, pad), images, weights)
    theirs, their_pullback = jax.vjp(plain(stride, *pads), images, weights)
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)
    cotangent = rng.standard_normal(ours.shape)
    expected = their_pullback(cotangent)
    for a, b in zip(our_pullback(cotangent), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)
    # The gradients that accelerators use, which CPUs can compute too.
    there = convolution._xla_gradients((stride, stride), (pads, pads), images, weights, cotangent)
    for a, b in zip(there, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def convolutions(function, platform):
    """Returns the convolutions in a function's gradients, as lowered for a platform."""
    shapes = jax.ShapeDtypeStruct((4, 8, 8, 3), "f4"), jax.ShapeDtypeStruct((3, 3, 3, 5), "f4")
    gradients = jax.jit(jax.grad(lambda *arrays: (function(*arrays) ** 2).sum(), (0, 1)))
    text = gradients.trace(*shapes).lower(lowering_platforms=(platform,)).as_text()
    return re.findall(r"convolution\(.*?dim_numbers = (.+?), window", text)


def test_only_cpus_get_the_canonical_gradients():
    ours, theirs = (lambda images, kernel: conv2d(images, kernel, 2, 1)), plain(2, 1, 1)
    for platform in ("cuda", "rocm", "tpu"):
        assert convolutions(ours, platform) == convolutions(theirs, platform)
    on_cpus = convolutions(ours, "cpu")
    assert len(on_cpus) == 3 and len(set(on_cpus)) == 1, on_cpus
    assert len(set(convolutions(theirs, "cpu"))) == 3


# Settings of a layer whose gradients are ours, and of some whose gradients are XLA's.
OURS = [
    {"kernel_size": (3, 3), "strides": 2},
    {"kernel_size": (3, 3), "strides": (1, 2), "padding": "VALID"},
    {"kernel_size": (1, 3), "strides": (2, 1), "padding": "SAME"},
    {"kernel_size": (3, 2), "strides": (3, 2), "padding": ((1, 0), (0, 2)), "use_bias": False},
]
THEIRS = [
    {"kernel_size": (3, 3), "kernel_dilation": 2},
    {"kernel_size": (3, 3), "feature_group_count": 4},
    {"kernel_size": (3, 3), "precision": "highest"},
    {"kernel_size": (3,)},
    {"kernel_size": (7, 7), "padding": "VALID"},
]


def layers(api, settings):
    """Returns a layer's outputs as functions of (params, images), with XLA's convolution and with ours."""
    conv = {}, {"conv_general_dilated": rwp_jax.conv_general_dilated}
    if api == "linen":
        return [nn.Conv(4, **settings, **ours).apply for ours in conv]

    def function(ours):
        layer = nnx.Conv(4, 4, **settings, **ours, rngs=nnx.Rngs(0), param_dtype="float64")
        graph, _ = nnx.split(layer)
        state = lambda params: nnx.State(jax.tree.map(nnx.Param, dict(params["params"])))
        return lambda params, images: nnx.merge(graph, state(params))(images)

    return [function(ours) for ours in conv]


@pytest.mark.parametrize("settings", OURS + THEIRS, ids=str)
@pytest.mark.parametrize("api", ["linen", "nnx"])
def test_layers_of_flax_take_it(api, settings):
    images = np.random.default_rng(0).standard_normal((2, 9, 6, 4))
    layer = nn.Conv(4, **settings, param_dtype="float64")
    params = layer.init(jax.random.key(0), images)
    sums = [
        lambda params, images, function=function: (function(params, images) ** 2).sum()
        for function in layers(api, settings)
    ]
    expected, found = (jax.value_and_grad(total, (0, 1))(params, images) for total in sums)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11), found, expected
    )


@pytest.mark.parametrize("settings", OURS, ids=str)
def test_gradients_of_layers_are_canonical_on_cpus(settings):
    layer = nn.Conv(4, **settings, conv_general_dilated=rwp_jax.conv_general_dilated)
    images = jax.ShapeDtypeStruct((2, 9, 6, 4), "f4")
    params = jax.eval_shape(layer.init, jax.random.key(0), images)
    total = lambda params, images: (layer.apply(params, images) ** 2).sum()
    text = jax.jit(jax.grad(total, (0, 1))).lower(params, images).as_text()
    assert len(set(re.findall(r"dim_numbers = (.+?), window", text))) == 1


def test_other_dimensions_and_dtypes_are_left_to_xla():
    images, weights = np.ones((2, 4, 6, 6), "f4"), np.ones((5, 4, 3, 3), "f4")
    found = rwp_jax.conv_general_dilated(images, weights, (1, 1), "SAME")  # NCHW, OIHW
    np.testing.assert_array_equal(found, lax.conv_general_dilated(images, weights, (1, 1), "SAME"))
    mixed = images.transpose(0, 2, 3, 1), weights.transpose(2, 3, 1, 0).astype("f2")
    numbers = ("NHWC", "HWIO", "NHWC")
    with pytest.raises(TypeError, match="same dtype"):
        rwp_jax.conv_general_dilated(*mixed, (1, 1), "SAME", dimension_numbers=numbers)
