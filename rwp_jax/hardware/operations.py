"""Counts floating-point operations of the matrix products in a compiled program: dots and convolutions.

Every multiply-add counts as two. As in XLA's own cost analysis, products with padding or with the holes of
a dilated array are not counted, although hardware may compute them. Elementwise arithmetic is not counted,
because its time is hidden by that of its memory traffic.
"""

import math
import re
from collections.abc import Callable, Mapping

from rwp_jax.hardware.hlo import Array, Instruction, Module

# cuDNN's calls in terms of the forward convolution whose window and labels they carry: which of (operand 0,
# operand 1, result) is its input, its kernel and its output.
_CUDNN = {
    "__cudnn$convForward": (0, 1, 2),
    "__cudnn$convBiasActivationForward": (0, 1, 2),
    "__cudnn$convBackwardInput": (2, 1, 0),
    "__cudnn$convBackwardFilter": (0, 2, 1),
}
_LABELS = re.compile(r"(\w+)_(\w+)->(\w+)")


def module_operations(module: Module) -> int:
    """Returns the operations of a module whose computations are each called at most once."""
    return sum(
        matrix_operations(instruction, [a for o in instruction.operands for a in body[o].arrays])
        for body in module.computations.values()
        for instruction in body.values()
    )


def matrix_operations(instruction: Instruction, operands: list[Array]) -> int:
    """Returns the operations of one instruction, without those it calls; 0 unless a dot or convolution."""
    result = instruction.arrays[0] if instruction.arrays else None
    if instruction.opcode == "dot":
        contracted = _numbers(instruction.attribute("lhs_contracting_dims"))
        return 2 * result.size * math.prod(operands[0].dims[d] for d in contracted)
    if instruction.opcode == "convolution":
        return _convolution(instruction, operands[0], operands[1], result)
    target = instruction.attribute("custom_call_target")
    if target in _CUDNN:
        places = (*operands[:2], result)
        images, kernel, output = (places[i] for i in _CUDNN[target])
        return _convolution(instruction, images, kernel, output)
    if target.startswith(("__cublas$", "__triton_gemm")):
        contracted = re.search(
            r'"lhs_contracting_dimensions":\["?(\d+)"?\]', instruction.attributes
        )
        return 2 * result.size * operands[0].dims[int(contracted[1])] if contracted else 0
    return 0


def _numbers(text: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", text)]


def _window(instruction: Instruction, dimensions: int) -> Mapping[str, list[int]]:
    """Returns the window per spatial dimension; on TPUs, matrix products are convolutions without any."""
    given = dict(part.split("=") for part in instruction.attribute("window").split())
    setting = lambda key: given[key].split("x") if key in given else ["1"] * dimensions
    window = {
        key: [int(n) for n in setting(key)]
        for key in ("size", "stride", "lhs_dilate", "rhs_dilate")
    }
    pads = given["pad"].split("x") if "pad" in given else ["0_0"] * dimensions
    return window | {"low": [int(pad.split("_")[0]) for pad in pads]}


def _convolution(instruction: Instruction, images: Array, kernel: Array, output: Array) -> int:
    """Returns the operations of a convolution with these operands."""
    images_at, kernel_at, output_at = _LABELS.match(instruction.attribute("dim_labels")).groups()
    size_of: Callable = lambda array, labels, label: array.dims[labels.index(label)]
    dimensions = sum(label.isdigit() for label in output_at)
    window = _window(instruction, dimensions)
    pairs = 1
    for d in range(dimensions):
        label = str(d)
        pairs *= _valid_pairs(
            size_of(images, images_at, label),
            size_of(output, output_at, label),
            *(window[key][d] for key in ("size", "stride", "low", "lhs_dilate", "rhs_dilate")),
        )
    # The kernel's input features are already those of one group.
    outputs = size_of(output, output_at, "b") * size_of(output, output_at, "f")
    return 2 * outputs * size_of(kernel, kernel_at, "i") * pairs


def _valid_pairs(
    images: int, outputs: int, size: int, stride: int, low: int, dilated: int, spread: int
) -> int:
    """Counts pairs of output and window position, in one dimension, that hit an entry of the images."""
    last = (images - 1) * dilated
    return sum(
        0 <= place <= last and place % dilated == 0
        for output in range(outputs)
        for place in range(output * stride - low, output * stride - low + size * spread, spread)
    )
