"""A convolution whose gradients stay fast inside loops on the CPU.

XLA's CPU backend runs a convolution in the body of a `while_loop`, `fori_loop` or `scan` through a
naive kernel unless its dimensions are in canonical order (jax-ml/jax issue 12868). The gradients
derived by autodiff are not: kernel gradients were measured 50-150 times slower, input gradients 2-6
times. Here both are NHWC/HWIO convolutions with explicit transposes. Other platforms choose their own
layouts, so they keep XLA's convolution and its gradients. The choice depends on the platform that a
program is compiled for, which may differ from the one it is traced on.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from rwp_jax.models import xla_flags


def prefer_eigen() -> None:
    """Makes XLA's CPU backend run convolutions with Eigen, not YNNPACK; call it before JAX computes.

    For float32 only: measured with jaxlib 0.10.2 and 0.12.0 on PreActResNet-18, batch 16, a forward is 1.6
    times faster and parameter gradients 1.3 times, but in float64 both are slower.
    """
    xla_flags.set_for_cpus(
        "--xla_cpu_experimental_ynn_fusion_type", "-LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION"
    )


def _conv(images, kernel, strides, padding, **dilation):
    return lax.conv_general_dilated(
        images, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"), **dilation
    )


def _padded_conv(images, kernel, strides, padding, lhs_dilation=(1, 1)):
    """As `_conv`, but pads images smaller than the kernel first, as they would miss the fast kernel."""
    if all(n >= k for n, k in zip(images.shape[1:3], kernel.shape, strict=False)):
        return _conv(images, kernel, strides, padding, lhs_dilation=lhs_dilation)
    inner = [(*pad, d - 1) for pad, d in zip(padding, lhs_dilation, strict=True)]
    padded = lax.pad(images, jnp.zeros((), images.dtype), [(0, 0, 0), *inner, (0, 0, 0)])
    # The barrier keeps XLA from folding the padding back into the convolution.
    return _conv(lax.optimization_barrier(padded), kernel, strides, "VALID")


def _pads(padding: int | tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Returns the zeros (before, behind) of rows and of columns."""
    return (((padding, padding) if isinstance(padding, int) else padding),) * 2


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv2d(images, kernel, stride: int, padding: int | tuple[int, int]):
    """Convolves images [N, H, W, C] with a kernel [h, w, C, O], padded with zeros.

    `padding` is the number of zeros on each side, or (before, behind) the rows and the columns.
    """
    strides, pads = (stride, stride), _pads(padding)
    # The choice is inside each half of the VJP: if it were differentiated, both branches would run.
    return lax.platform_dependent(
        images,
        kernel,
        cpu=lambda images, kernel: _padded_conv(images, kernel, strides, pads),
        default=lambda images, kernel: _conv(images, kernel, strides, pads),
    )


def _forward(images, kernel, stride, padding):
    return conv2d(images, kernel, stride, padding), (images, kernel)


def _backward(stride, padding, residuals, cotangent):
    return lax.platform_dependent(
        *residuals,
        cotangent,
        cpu=functools.partial(_canonical_gradients, stride, padding),
        default=functools.partial(_xla_gradients, stride, padding),
    )


conv2d.defvjp(_forward, _backward)


def _xla_gradients(stride, padding, images, kernel, cotangent):
    """Gradients with respect to images and kernel, as derived by autodiff."""
    conv = lambda images, kernel: _conv(images, kernel, (stride, stride), _pads(padding))
    return jax.vjp(conv, images, kernel)[1](cotangent)


def _canonical_gradients(stride, padding, images, kernel, cotangent):
    """The same gradients as convolutions with canonical dimensions."""
    sizes, windows = images.shape[1:3], kernel.shape[:2]
    before, _ = _pads(padding)[0]
    # Extent of the cotangent with stride - 1 zeros between its entries.
    dilated = [(n - 1) * stride + 1 for n in cotangent.shape[1:3]]
    # Padding behind the image for which each window position meets one entry of the dilated cotangent.
    behind = [d + k - 1 - n - before for d, k, n in zip(dilated, windows, sizes, strict=True)]

    # Input gradient: the dilated cotangent convolved with the flipped kernel, I and O swapped.
    images_gradient = _padded_conv(
        cotangent,
        jnp.flip(kernel, (0, 1)).swapaxes(2, 3),
        (1, 1),
        [(k - 1 - before, k - 1 - b) for k, b in zip(windows, behind, strict=True)],
        lhs_dilation=(stride, stride),
    )

    # Kernel gradient: channels take the place of the batch, the cotangent that of the kernel. Rows
    # and columns beyond the last window are cut off: negative padding would miss the fast kernel.
    height, width = (n + min(b, 0) for n, b in zip(sizes, behind, strict=True))
    kernel_gradient = _conv(
        images[:, :height, :width].transpose(3, 1, 2, 0),
        cotangent.transpose(1, 2, 0, 3),
        (1, 1),
        [(before, max(b, 0)) for b in behind],
        rhs_dilation=(stride, stride),
    ).transpose(1, 2, 0, 3)
    return images_gradient, kernel_gradient
