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

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


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
        images, kernel, strides, padding, dimension_numbers=_DIMENSIONS, **dilation
    )


def _padded_conv(images, kernel, strides, padding, lhs_dilation=(1, 1)):
    """As `_conv`, but pads images smaller than the kernel first, as they would miss the fast kernel."""
    if all(n >= k for n, k in zip(images.shape[1:3], kernel.shape, strict=False)):
        return _conv(images, kernel, strides, padding, lhs_dilation=lhs_dilation)
    inner = [(*pad, d - 1) for pad, d in zip(padding, lhs_dilation, strict=True)]
    padded = lax.pad(images, jnp.zeros((), images.dtype), [(0, 0, 0), *inner, (0, 0, 0)])
    # The barrier keeps XLA from folding the padding back into the convolution.
    return _conv(lax.optimization_barrier(padded), kernel, strides, "VALID")


def conv2d(images, kernel, stride: int, padding: int | tuple[int, int]):
    """Convolves images [N, H, W, C] with a kernel [h, w, C, O], padded with zeros.

    `padding` is the number of zeros on each side, or (before, behind) the rows and the columns.
    """
    pad = (padding, padding) if isinstance(padding, int) else padding
    return _convolve(images, kernel, (stride, stride), (pad, pad))


def conv_general_dilated(
    lhs,
    rhs,
    window_strides,
    padding,
    lhs_dilation=None,
    rhs_dilation=None,
    dimension_numbers=None,
    **options,
):
    """`lax.conv_general_dilated` with gradients that are fast in loops on CPUs, for layers of Flax.

    `flax.linen.Conv(..., conv_general_dilated=rwp_jax.conv_general_dilated)`, and `flax.nnx.Conv` likewise,
    then compute the same values. Gradients are fast for images [N, H, W, C] and kernels [h, w, C, O] of one
    dtype, without dilation and `options`, and have no forward mode (`jax.jvp`). All other convolutions, and
    those on GPUs and TPUs, are XLA's.

    Args:
      lhs: images.
      rhs: kernel.
      window_strides: two strides, of rows and of columns.
      padding: `SAME`, `VALID`, or the zeros (before, behind) the rows and the columns.
      lhs_dilation: dilation of the images.
      rhs_dilation: dilation of the kernel.
      dimension_numbers: order of the dimensions; ("NHWC", "HWIO", "NHWC") is the fast one.
      options: such as `feature_group_count` and `precision`.

    Returns:
      The convolved images.

    Raises:
      TypeError, ValueError: as `jax.lax.conv_general_dilated` does.
    """
    settings = window_strides, padding, lhs_dilation, rhs_dilation, dimension_numbers
    pads = _plain_pads(lhs, rhs, *settings, options)
    if pads is None:
        return lax.conv_general_dilated(lhs, rhs, *settings, **options)
    return _convolve(lhs, rhs, tuple(window_strides), pads)


def _plain_pads(lhs, rhs, strides, padding, lhs_dilation, rhs_dilation, numbers, options: dict):
    """Returns the padding ((before, behind), (before, behind)) for `_convolve`, or None if it cannot."""
    if lhs.ndim != 4 or rhs.ndim != 4 or lhs.dtype != rhs.dtype:
        return None
    numbers = lax.conv_dimension_numbers(lhs.shape, rhs.shape, numbers)
    ours = lax.conv_dimension_numbers(lhs.shape, rhs.shape, _DIMENSIONS)
    undilated = all(d is None or tuple(d) == (1, 1) for d in (lhs_dilation, rhs_dilation))
    if (
        numbers != ours
        or not undilated
        or any(value not in (None, 1) for value in options.values())
    ):
        return None
    sizes, windows = lhs.shape[1:3], rhs.shape[:2]
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(sizes, windows, strides, padding)
    pads = tuple((int(before), int(behind)) for before, behind in padding)
    # An empty result has no gradient with canonical dimensions.
    is_empty = any(n + sum(pad) < k for n, k, pad in zip(sizes, windows, pads, strict=True))
    return None if is_empty else pads


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve(images, kernel, strides: tuple[int, int], pads):
    """Convolves with `pads`, the zeros (before, behind) of rows and of columns."""
    # The choice is inside each half of the VJP: if it were differentiated, both branches would run.
    return lax.platform_dependent(
        images,
        kernel,
        cpu=lambda images, kernel: _padded_conv(images, kernel, strides, pads),
        default=lambda images, kernel: _conv(images, kernel, strides, pads),
    )


def _forward(images, kernel, strides, pads):
    return _convolve(images, kernel, strides, pads), (images, kernel)


def _backward(strides, pads, residuals, cotangent):
    return lax.platform_dependent(
        *residuals,
        cotangent,
        cpu=functools.partial(_canonical_gradients, strides, pads),
        default=functools.partial(_xla_gradients, strides, pads),
    )


_convolve.defvjp(_forward, _backward)


def _xla_gradients(strides, pads, images, kernel, cotangent):
    """Gradients with respect to images and kernel, as derived by autodiff."""
    conv = lambda images, kernel: _conv(images, kernel, strides, pads)
    return jax.vjp(conv, images, kernel)[1](cotangent)


def _canonical_gradients(strides, pads, images, kernel, cotangent):
    """The same gradients as convolutions with canonical dimensions."""
    sizes, windows = images.shape[1:3], kernel.shape[:2]
    before = [pad for pad, _ in pads]
    # Extent of the cotangent with stride - 1 zeros between its entries.
    dilated = [(n - 1) * s + 1 for n, s in zip(cotangent.shape[1:3], strides, strict=True)]
    # Padding behind the image for which each window position meets one entry of the dilated cotangent.
    behind = [d + k - 1 - n - b for d, k, n, b in zip(dilated, windows, sizes, before, strict=True)]

    # Input gradient: the dilated cotangent convolved with the flipped kernel, I and O swapped.
    images_gradient = _padded_conv(
        cotangent,
        jnp.flip(kernel, (0, 1)).swapaxes(2, 3),
        (1, 1),
        [(k - 1 - b, k - 1 - a) for k, b, a in zip(windows, before, behind, strict=True)],
        lhs_dilation=strides,
    )

    # Kernel gradient: channels take the place of the batch, the cotangent that of the kernel. Rows
    # and columns beyond the last window are cut off: negative padding would miss the fast kernel.
    height, width = (n + min(b, 0) for n, b in zip(sizes, behind, strict=True))
    kernel_gradient = _conv(
        images[:, :height, :width].transpose(3, 1, 2, 0),
        cotangent.transpose(1, 2, 0, 3),
        (1, 1),
        [(b, max(a, 0)) for b, a in zip(before, behind, strict=True)],
        rhs_dilation=strides,
    ).transpose(1, 2, 0, 3)
    return images_gradient, kernel_gradient
