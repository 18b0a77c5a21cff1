"""The convolution of every platform against XLA's own."""

import re

import jax
import numpy as np
import pytest
from jax import lax

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
    there = convolution._xla_gradients(stride, pad, images, weights, cotangent)
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
