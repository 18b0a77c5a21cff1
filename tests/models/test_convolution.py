import jax
import numpy as np
import pytest
from jax import lax

from rwp_jax.models.convolution import conv2d

# (size, channels, features, kernel, stride): images smaller than the kernel, odd sizes, strided 1x1.
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


@pytest.mark.parametrize(("size", "channels", "features", "kernel", "stride"), SHAPES)
def test_values_and_gradients_equal_xla(size, channels, features, kernel, stride):
    rng = np.random.default_rng(0)
    images = rng.standard_normal((5, *size, channels))
    weights = rng.standard_normal((kernel, kernel, channels, features))
    pad = kernel // 2

    def plain(images, weights):
        return lax.conv_general_dilated(
            images,
            weights,
            (stride, stride),
            [(pad, pad)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    ours, our_pullback = jax.vjp(lambda x, w: conv2d(x, w, stride, pad), images, weights)
    theirs, their_pullback = jax.vjp(plain, images, weights)
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)
    cotangent = rng.standard_normal(ours.shape)
    for a, b in zip(our_pullback(cotangent), their_pullback(cotangent), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)
