"""Counts the cost of a compiled program's kernels: bytes, operations, exchanges and minimum time.

A kernel is an instruction that runs on the device; the start and end of an asynchronous one count as one
kernel. Its bytes are those of its operands and results in the device's main memory; if it only gathers from
or slices an operand, only the bytes that it reads count. Its floor is the larger of bytes over bandwidth
and operations over the rate of matrix products in its precision. Caches may serve bytes faster than the
main memory does, so a floor is not a physical limit.
"""

from collections.abc import Iterator
from typing import NamedTuple

from rwp_jax.hardware.datasheets import Datasheet
from rwp_jax.hardware.hlo import Array, Instruction, Module
from rwp_jax.hardware.operations import matrix_operations

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
# Instructions that take no time: names for buffers, waits, and loops, whose bodies are counted separately.
_NOTHING = {
    "parameter",
    "tuple",
    "get-tuple-element",
    "constant",
    "bitcast",
    "while",
    "after-all",
    "partition-id",
    "replica-id",
    "opt-barrier",
}
_NOTHING_CALLED = ("ConcatBitcast", "AllocateBuffer", "AssumeGatherIndicesInBound")  # on TPUs
_SPARSE = ("gather", "slice", "dynamic-slice")  # these read only a part of their first operand
_UNARY = ("bitcast", "convert", "copy", "negate", "reshape", "transpose")


class Kernel(NamedTuple):
    """An instruction that runs on the device.

    Attributes:
      name: XLA's name.
      opcode: XLA's opcode, without the `-start` of asynchronous ones.
      op_name: origin in the traced function.
      bytes: bytes that it reads and writes.
      flops: operations of its matrix products.
      floor: minimum time in seconds.
      reduces: whether all its results are reductions over an axis, such as sums or maxima.
      exchanged: bytes of a collective's operands on a device.
      sent: minimum bytes that a device's links carry in one direction, if the network itself could add
        and copy.
      overlaps: whether it is a copy that overlaps with other kernels.
    """

    name: str
    opcode: str
    op_name: str
    bytes: int
    flops: int
    floor: float
    reduces: bool
    exchanged: int
    sent: float
    overlaps: bool


class Counter:
    """Counts the kernels of a program's computations.

    Args:
      module: the program.
      chip: data sheet with the bandwidth and rates to use.
      devices: number of devices of the program.
    """

    def __init__(self, module: Module, chip: Datasheet, devices: int):
        self.module, self.chip, self.devices = module, chip, devices

    def called(self, instruction: Instruction) -> list[str]:
        keys = ("calls", "to_apply", "true_computation", "false_computation", "called_computations")
        names = [instruction.attribute(key) for key in keys]
        branches = instruction.attribute("branch_computations")
        names += [name.strip().removeprefix("%") for name in branches.split(",")]
        return [name for name in names if name in self.module.computations]

    def kernels(self, computation: str) -> Iterator[Kernel]:
        instructions = self.module.computations[computation]
        for instruction in instructions.values():
            if _takes_no_time(instruction):
                continue
            if instruction.opcode == "call":
                for called in self.called(instruction):
                    yield from self.kernels(called)
            elif instruction.opcode == "conditional":  # one of its branches runs
                branches = [tuple(self.kernels(c)) for c in self.called(instruction)]
                yield from min(branches, key=lambda kernels: sum(k.floor for k in kernels))
            else:
                yield self._kernel(instruction, instructions)

    def _kernel(self, instruction: Instruction, siblings: dict[str, Instruction]) -> Kernel:
        operands = [siblings[name] for name in instruction.operands]
        opcode = instruction.opcode.removesuffix("-start")
        started = opcode != instruction.opcode
        inner = [c for c in self.called(instruction) if opcode in ("fusion", "async")]
        if opcode == "async":
            bodies = [j for c in inner for j in self.module.computations[c].values()]
            opcode = next((j.opcode for j in bodies if j.opcode not in _NOTHING), opcode)
        moved = self._bytes_read(instruction, operands, inner) + self._bytes_written(instruction)
        flops = {}
        self._add_flops(instruction, siblings, flops)
        busy = sum(count / self.chip.rates[kind] for kind, count in flops.items() if count)
        floor = max(moved / self.chip.bandwidth, busy)
        exchanged = 0
        if opcode in COLLECTIVES:
            exchanged = sum(array.bytes for operand in operands for array in operand.arrays)
        overlaps = started and opcode in ("copy", "slice", "dynamic-slice", "dynamic-update-slice")
        return Kernel(
            instruction.name,
            opcode,
            instruction.op_name,
            moved,
            sum(flops.values()),
            floor,
            self._reduces(instruction, inner),
            exchanged,
            self._sent(opcode, exchanged),
            overlaps,
        )

    def _in_main_memory(self, array: Array) -> int:
        # On TPUs other spaces are on-chip memory; on GPUs they are main memory that is shared.
        return array.bytes if self.chip.gpu or array.space == 0 else 0

    def _bytes_written(self, instruction: Instruction) -> int:
        arrays = instruction.arrays
        operands = len(instruction.operands)
        if instruction.opcode == "copy-start":  # (result, operand, flag)
            arrays = arrays[:1]
        elif instruction.opcode == "all-reduce-start":  # the results alone
            arrays = arrays[:operands]
        elif instruction.opcode.endswith("-start") and len(arrays) > 1:  # (operands, results, flag)
            arrays = arrays[operands:][:operands]
        return sum(map(self._in_main_memory, arrays))

    def _bytes_read(self, instruction: Instruction, operands, inner: list[str]) -> int:
        total = 0
        for place, operand in enumerate(operands):
            whole = sum(map(self._in_main_memory, operand.arrays))
            part = self._part_read(inner[0], place) if len(inner) == 1 else None
            if instruction.opcode in _SPARSE and place == 0:
                part = sum(array.bytes for array in instruction.arrays)
            elif instruction.opcode == "slice-start":
                part = instruction.arrays[1].bytes
            total += whole if part is None else min(whole, part)
        return total

    def _part_read(self, computation: str, place: int) -> int | None:
        """Returns the bytes of a parameter that a fusion reads, None for all of them."""
        body = self.module.computations[computation]
        parameter = _parameter(body, place)
        if parameter is None:
            return None
        names, total = {parameter.name}, 0  # names of the parameter, whole or converted
        for user in body.values():  # in order: users follow what they use
            places = [i for i, name in enumerate(user.operands) if name in names]
            if not places:
                continue
            if user.opcode in _UNARY or (
                user.opcode == "fusion" and self._converts(user, places[0])
            ):
                names.add(user.name)
            elif user.opcode in _SPARSE and places == [0]:
                total += sum(array.bytes for array in user.arrays)
            elif user.opcode == "fusion" and len(self.called(user)) == 1:
                parts = [self._part_read(self.called(user)[0], i) for i in places]
                if None in parts:
                    return None
                total += sum(parts)
            else:
                return None
        return None if any(body[name].root for name in names) else total

    def _converts(self, fusion: Instruction, place: int) -> bool:
        """Whether a fusion inside another only copies or converts an operand."""
        if len(self.called(fusion)) != 1:
            return False
        body = self.module.computations[self.called(fusion)[0]]
        result = next(i for i in body.values() if i.root)
        while result.opcode in _UNARY:
            result = body[result.operands[0]]
        return result is _parameter(body, place)

    def _add_flops(self, instruction, siblings, flops: dict[str, int]) -> None:
        operands = [array for name in instruction.operands for array in siblings[name].arrays]
        count = matrix_operations(instruction, operands)
        if count:
            kind = _precision(instruction, operands)
            flops[kind] = flops.get(kind, 0) + count
        if instruction.opcode.removesuffix("-start") in ("fusion", "call", "async"):
            for called in self.called(instruction):
                inside = self.module.computations[called]
                for inner in inside.values():
                    self._add_flops(inner, inside, flops)

    def _reduces(self, instruction: Instruction, inner: list[str]) -> bool:
        if instruction.opcode == "reduce":
            return True
        if instruction.opcode != "fusion" or len(inner) != 1:
            return False
        body = self.module.computations[inner[0]]
        root = next(i for i in body.values() if i.root)
        results = [body[name] for name in root.operands] if root.opcode == "tuple" else [root]

        def is_reduction(result: Instruction) -> bool:
            while result.opcode in _UNARY:
                result = body[result.operands[0]]
            return result.opcode == "reduce"

        return all(map(is_reduction, results))

    def _sent(self, opcode: str, exchanged: int) -> float:
        """Returns the larger of the bytes that a device must send and those that it must receive."""
        if opcode == "all-gather":
            return (self.devices - 1) * exchanged
        if opcode in ("reduce-scatter", "all-to-all"):
            return (self.devices - 1) / self.devices * exchanged
        return exchanged


def _parameter(body: dict[str, Instruction], place: int) -> Instruction | None:
    """Returns the parameter with this number, None if there is none."""
    numbered = (i for i in body.values() if i.opcode == "parameter" and i.argument == str(place))
    return next(numbered, None)


def _takes_no_time(instruction: Instruction) -> bool:
    return (
        instruction.opcode in _NOTHING
        or instruction.opcode.endswith("-done")
        or instruction.attribute("custom_call_target") in _NOTHING_CALLED
    )


def _precision(instruction: Instruction, operands: list[Array]) -> str:
    """Returns the key of `Datasheet.rates` for a matrix product."""
    narrowest = min(operands[:2], key=lambda array: array.bytes / max(array.size, 1))
    if narrowest.dtype == "f64":
        return "float64"
    if narrowest.dtype != "f32":
        return "bfloat16"
    return "float32" if "highest" in instruction.attribute("operand_precision") else "default"
