"""Operations counted from a program's text against XLA's cost analysis."""

import pathlib

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from rwp_jax.hardware.hlo import parse
from rwp_jax.hardware.operations import matrix_operations, module_operations


def unoptimised(function, *shapes) -> tuple[int, float]:
    """Returns our count and XLA's for a function that consists only of products."""
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    lowered = jax.jit(function).lower(*arrays)
    text = lowered.compiler_ir("hlo").as_hlo_module().to_string()
    return module_operations(parse(text)), lowered.cost_analysis()["flops"]


@pytest.mark.parametrize(
    ("stride", "padding", "lhs_dilation", "rhs_dilation"),
    [
        ((1, 1), ((1, 1), (1, 1)), (1, 1), (1, 1)),
        ((2, 2), ((1, 1), (1, 1)), (1, 1), (1, 1)),
        ((1, 1), ((0, 0), (0, 0)), (1, 1), (1, 1)),
        ((2, 1), ((0, 1), (2, 0)), (1, 1), (1, 1)),
        ((1, 1), ((1, 2), (1, 2)), (2, 2), (1, 1)),  # an input gradient of stride 2
        ((1, 1), ((1, 0), (1, 0)), (1, 1), (2, 2)),  # a kernel gradient of stride 2
    ],
)
def test_convolutions(stride, padding, lhs_dilation, rhs_dilation):
    def convolve(images, kernel):
        return lax.conv_general_dilated(
            images,
            kernel,
            stride,
            padding,
            lhs_dilation,
            rhs_dilation,
            ("NHWC", "HWIO", "NHWC"),
        )

    ours, theirs = unoptimised(convolve, (4, 9, 8, 5), (3, 3, 5, 6))
    assert ours == theirs > 0


def test_grouped_convolutions():
    def convolve(images, kernel):
        numbers = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(
            images, kernel, (1, 1), "SAME", dimension_numbers=numbers, feature_group_count=2
        )

    ours, theirs = unoptimised(convolve, (4, 8, 8, 6), (3, 3, 3, 8))
    assert ours == theirs > 0


@pytest.mark.parametrize("equation", ["ab,bc->ac", "nab,nbc->nac", "abc,bcd->ad", "ab,cb->ca"])
def test_dots(equation):
    sizes = {"a": 3, "b": 4, "c": 5, "d": 6, "n": 7}
    shapes = [tuple(sizes[i] for i in term) for term in equation.partition("->")[0].split(",")]
    ours, theirs = unoptimised(lambda x, y: jnp.einsum(equation, x, y), *shapes)
    assert ours == theirs > 0


CUDNN = (pathlib.Path(__file__).parents[1] / "fixtures/hlo/cudnn.txt").read_text()


def test_cudnn_calls_cost_what_their_forward_convolution_does():
    def convolve(images, kernel):
        pad = ((0, 1), (0, 1))
        numbers = ("NHWC", "OHWI", "NHWC")
        return lax.conv_general_dilated(images, kernel, (2, 2), pad, dimension_numbers=numbers)

    _, theirs = unoptimised(convolve, (2, 8, 8, 3), (5, 3, 3, 3))
    body = parse(CUDNN).computations["main"]
    for name in ("forward", "fused", "images_gradient", "kernel_gradient"):
        arrays = [a for operand in body[name].operands for a in body[operand].arrays]
        assert matrix_operations(body[name], arrays) == theirs
