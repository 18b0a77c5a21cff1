"""Parses the text of a compiled program into instructions with shapes and attributes.

XLA prints an optimised module as computations with one instruction per line. Only what `counts`, `kernels`
and `operations` need is parsed; attributes stay text until they are requested.
"""

import functools
import math
import re
from typing import NamedTuple

_ARRAY = re.compile(r"\b(pred|token|opaque|bf16|[csuf]\d+\w*)\[([\d,<= ]*)\](\{[^{}]*\})?")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_OPCODE = re.compile(r"\s*([a-z][\w\-]*)\(")
_NAME = re.compile(r"%([\w.\-]+)")
_SPACE = re.compile(r"S\((\d+)\)")
_BITS = {"pred": 8, "token": 0, "opaque": 0}


class Array(NamedTuple):
    """An array within a shape.

    Attributes:
      dtype: XLA's name, such as `bf16`.
      dims: sizes of the dimensions; for dynamic dimensions, their bounds.
      space: number of its memory space, 0 for the device's main memory.
    """

    dtype: str
    dims: tuple[int, ...]
    space: int

    @property
    def size(self) -> int:
        return math.prod(self.dims)

    @property
    def bytes(self) -> int:
        bits = _BITS.get(self.dtype)
        if bits is None:
            bits = int(re.search(r"\d+", self.dtype)[0])
        return math.ceil(self.size * bits / 8)


class Instruction(NamedTuple):
    """One line of a computation.

    Attributes:
      name: unique in the module.
      opcode: the operation, such as `fusion`.
      arrays: arrays of its result; several for a tuple.
      operands: names of instructions in the same computation.
      argument: text in its parentheses, such as a parameter's number or a constant's value.
      attributes: text after the parentheses.
      root: whether it is the computation's result.
    """

    name: str
    opcode: str
    arrays: tuple[Array, ...]
    operands: tuple[str, ...]
    argument: str
    attributes: str
    root: bool

    def attribute(self, key: str) -> str:
        """Returns the value of KEY=VALUE without surrounding braces or quotes; "" if the key is missing."""
        match = re.search(rf'[ ,]{key}=(\{{[^{{}}]*\}}|"[^"]*"|[^,\s]+)', self.attributes)
        return match[1].strip('{}"').removeprefix("%") if match else ""

    @property
    def op_name(self) -> str:
        """Origin in the traced function: names of functions and scopes, separated by slashes."""
        match = re.search(r'op_name="([^"]*)"', self.attributes)
        return match[1] if match else ""


class Module(NamedTuple):
    """A program: computations by name; each maps names to instructions, in order."""

    computations: dict[str, dict[str, Instruction]]
    entry: str


@functools.lru_cache(maxsize=4096)
def arrays_of(text: str) -> tuple[Array, ...]:
    """Returns the arrays in the text of a shape."""
    found = []
    for dtype, dims, layout in _ARRAY.findall(text):
        space = _SPACE.search(layout)
        sizes = tuple(int(d.strip(" <=")) for d in dims.split(",") if d)
        found.append(Array(dtype, sizes, int(space[1]) if space else 0))
    return tuple(found)


def _closing(text: str, start: int) -> int:
    """Returns the index of the parenthesis that closes the one at `start`."""
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] == "(") - (text[i] == ")")
        if not depth:
            return i
    raise ValueError(f"no closing parenthesis: {text[start : start + 80]}")


def _instruction(name: str, text: str, root: bool) -> Instruction:
    """Parses SHAPE OPCODE(OPERANDS), ATTRIBUTES."""
    end = _closing(text, 0) + 1 if text.startswith("(") else text.index(" ")
    opcode = _OPCODE.match(text, end)
    close = _closing(text, opcode.end() - 1)
    argument = text[opcode.end() : close]
    operands = tuple(_NAME.findall(argument))
    return Instruction(
        name, opcode[1], arrays_of(text[:end]), operands, argument, text[close + 1 :], root
    )


def parse(text: str) -> Module:
    """Parses the result of `jax.stages.Compiled.as_text`; ValueError if it has no entry computation."""
    computations: dict[str, dict[str, Instruction]] = {}
    entry, current = "", None
    for line in text.splitlines():
        header = _COMPUTATION.match(line)
        if header:
            current = computations.setdefault(header[2], {})
            entry = header[2] if header[1] else entry
        elif line.startswith("}"):
            current = None
        elif current is not None and (match := _INSTRUCTION.match(line)):
            current[match[2]] = _instruction(match[2], match[3], bool(match[1]))
    if not entry:
        raise ValueError("no ENTRY computation in the program's text")
    return Module(computations, entry)
