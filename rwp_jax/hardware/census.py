"""What a compiled program does: kernels, bytes and operations of each loop, and the least time they take.

A kernel is an instruction of a loop's body, or of the rest of the program, that runs on the device. Its
bytes are those of its operands and results in the device's main memory; of an operand that it only gathers
from, or slices at a place known at run time, those that it reads. Its floor is the larger of bytes over
bandwidth and operations over the rate of matrix products in its precision. A cache may serve bytes faster
than the memory, so a floor is that of the main memory, not of physics.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from rwp_jax.hardware.datasheets import Datasheet
from rwp_jax.hardware.hlo import Array, Instruction, Module, parse
from rwp_jax.hardware.operations import matrix_operations

REST = "rest"
SCOPES = ("attack", "perturb")  # of `attacks.pgd` and `weight_perturbation`
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
# What takes no time of its own: names for buffers, loops, whose bodies are counted apart, waits.
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
_SPARSE = ("gather", "dynamic-slice")  # read a part of their first operand
_UNARY = ("bitcast", "convert", "copy", "negate", "reshape", "transpose")


class Kernel(NamedTuple):
    """An instruction that runs on the device.

    Attributes:
      name: XLA's.
      opcode: likewise; `-start` of what runs beside others is left out.
      op_name: where it comes from in the traced function.
      bytes: that it reads and writes.
      flops: of its matrix products.
      floor: seconds.
      reduces: whether its results are sums or maxima over an axis, and nothing else.
      exchanged: bytes that a device hands in, of a collective.
      overlaps: whether it is a copy that runs beside other kernels.
    """

    name: str
    opcode: str
    op_name: str
    bytes: int
    flops: int
    floor: float
    reduces: bool
    exchanged: int
    overlaps: bool


class Part(NamedTuple):
    """A loop's body, without the loops inside, or what is outside all loops.

    Attributes:
      name: the loop's scope in the traced function, or REST.
      trips: iterations, None where only the device knows.
      kernels: in order.
      floor: seconds of one iteration. Copies that overlap may hide, their bytes not.
    """

    name: str
    trips: int | None
    kernels: tuple[Kernel, ...]
    floor: float

    @property
    def bytes(self) -> int:
        return sum(kernel.bytes for kernel in self.kernels)

    @property
    def flops(self) -> int:
        return sum(kernel.flops for kernel in self.kernels)

    @property
    def collectives(self) -> list[Kernel]:
        return [kernel for kernel in self.kernels if kernel.opcode in COLLECTIVES]


def take(text: str, chip: Datasheet, devices: int, program: str) -> list[Part]:
    """Counts a compiled program.

    Args:
      text: `jax.stages.Compiled.as_text()`.
      chip: whose bandwidth and rates count.
      devices: of the program.
      program: names loops that lie in none of SCOPES.

    Returns:
      The loops in order, then the rest.
    """
    counter = _Counter(parse(text), chip, devices)
    parts = [counter.part(*loop) for loop in counter.loops(counter.module.entry, program)]
    return [*parts, counter.part(REST, 1, counter.module.entry)]


def seconds(parts: Sequence[Part], trips: Mapping[str, int]) -> float:
    """The least time of a whole program.

    Args:
      parts: of `take`.
      trips: iterations of loops whose number only the device knows, by name; 1 where there is none.
    """
    total, counts = 0.0, {}
    for part in parts:
        count = part.trips if part.trips is not None else trips.get(part.name, 1)
        count *= counts.get(part.name.rpartition("/")[0], 1)
        counts[part.name] = count
        total += count * part.floor
    return total


class _Counter:
    """Counts computations of a module."""

    def __init__(self, module: Module, chip: Datasheet, devices: int):
        self.module, self.chip, self.devices = module, chip, devices

    def loops(
        self, computation: str, program: str, outer: str = ""
    ) -> Iterator[tuple[str, int | None, str]]:
        """(name, iterations, body) of the loops in a computation, each before those inside it."""
        for instruction in self.module.computations[computation].values():
            if instruction.opcode == "while":
                body, path = instruction.attribute("body"), instruction.op_name.split("/")
                name = next((scope for scope in SCOPES if scope in path), program)
                name = f"{outer}/inner" if outer else name
                trips = re.search(r'"known_trip_count":\{"n":"(\d+)"', instruction.attributes)
                yield name, int(trips[1]) if trips else None, body
                yield from self.loops(body, program, name)
            elif instruction.opcode in ("call", "conditional"):
                for called in self._called(instruction):
                    yield from self.loops(called, program, outer)

    def part(self, name: str, trips: int | None, computation: str) -> Part:
        kernels = tuple(self._kernels(computation))
        alone = sum(kernel.floor for kernel in kernels if not kernel.overlaps)
        moved = sum(kernel.bytes for kernel in kernels) / self.chip.bandwidth
        return Part(name, trips, kernels, max(alone, moved))

    def _called(self, instruction: Instruction) -> list[str]:
        keys = ("calls", "to_apply", "true_computation", "false_computation", "called_computations")
        names = [instruction.attribute(key) for key in keys]
        branches = instruction.attribute("branch_computations")
        names += [name.strip().removeprefix("%") for name in branches.split(",")]
        return [name for name in names if name in self.module.computations]

    def _kernels(self, computation: str) -> Iterator[Kernel]:
        instructions = self.module.computations[computation]
        for instruction in instructions.values():
            if _takes_no_time(instruction):
                continue
            if instruction.opcode == "call":
                for called in self._called(instruction):
                    yield from self._kernels(called)
            elif instruction.opcode == "conditional":  # one of its branches runs
                branches = [tuple(self._kernels(c)) for c in self._called(instruction)]
                yield from min(branches, key=lambda kernels: sum(k.floor for k in kernels))
            else:
                yield self._kernel(instruction, instructions)

    def _kernel(self, instruction: Instruction, siblings: dict[str, Instruction]) -> Kernel:
        operands = [siblings[name] for name in instruction.operands]
        opcode = instruction.opcode.removesuffix("-start")
        started = opcode != instruction.opcode
        inner = [c for c in self._called(instruction) if opcode in ("fusion", "async")]
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
            floor = max(floor, self._link_bytes(opcode, exchanged) / self.chip.link)
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
            overlaps,
        )

    def _in_main_memory(self, array: Array) -> int:
        # TPUs number the memories on the chip; GPUs, memory that is the same but shared.
        return array.bytes if self.chip.gpu or array.space == 0 else 0

    def _bytes_written(self, instruction: Instruction) -> int:
        arrays = instruction.arrays
        if instruction.opcode == "copy-start":  # (result, operand, flag)
            arrays = arrays[:1]
        elif instruction.opcode.endswith("-start") and len(arrays) > 1:  # (operand, result, flag)
            arrays = arrays[len(instruction.operands) :][: len(instruction.operands)]
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
        """Bytes of a parameter that a fusion reads, None for all of them."""
        body = self.module.computations[computation]
        parameter = next(
            (i for i in body.values() if i.opcode == "parameter" and i.argument == str(place)), None
        )
        if parameter is None:
            return None
        names, total = {parameter.name}, 0
        for user in body.values():  # in order: users follow what they use
            if names.isdisjoint(user.operands):
                continue
            if user.opcode in ("bitcast", "reshape"):
                names.add(user.name)
            elif user.opcode in _SPARSE and names.isdisjoint(user.operands[1:]):
                total += sum(array.bytes for array in user.arrays)
            else:
                return None
        return total

    def _add_flops(self, instruction, siblings, flops: dict[str, int]) -> None:
        operands = [array for name in instruction.operands for array in siblings[name].arrays]
        count = matrix_operations(instruction, operands)
        if count:
            kind = _precision(instruction, operands)
            flops[kind] = flops.get(kind, 0) + count
        if instruction.opcode in ("fusion", "call", "async-start"):
            for called in self._called(instruction):
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

    def _link_bytes(self, opcode: str, exchanged: int) -> float:
        """Bytes that a device sends at least, in a ring."""
        others = self.devices - 1
        if opcode == "all-reduce":
            return 2 * others / self.devices * exchanged
        if opcode == "all-gather":
            return others * exchanged
        return others / self.devices * exchanged


def _takes_no_time(instruction: Instruction) -> bool:
    return (
        instruction.opcode in _NOTHING
        or instruction.opcode.endswith("-done")
        or instruction.attribute("custom_call_target") in _NOTHING_CALLED
    )


def _precision(instruction: Instruction, operands: list[Array]) -> str:
    """The rate that a matrix product runs at: a key of `Datasheet.rates`."""
    narrowest = min(operands[:2], key=lambda array: array.bytes / max(array.size, 1))
    if narrowest.dtype == "f64":
        return "float64"
    if narrowest.dtype != "f32":
        return "bfloat16"
    return "float32" if "highest" in instruction.attribute("operand_precision") else "default"
