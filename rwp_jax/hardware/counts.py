"""Counts a compiled program, loop by loop: kernels, bytes, operations, and their minimum time."""

import collections
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from rwp_jax.hardware.datasheets import Datasheet
from rwp_jax.hardware.hlo import parse
from rwp_jax.hardware.kernels import COLLECTIVES, Counter, Kernel

REST = "rest"
SCOPES = ("attack", "perturb")  # of `attacks.pgd` and `weight_perturbation`


class Part(NamedTuple):
    """A loop's body without its inner loops, or everything outside loops.

    Attributes:
      name: the loop's scope in the traced function, or REST.
      trips: number of iterations, None if it is known only at run time.
      kernels: the kernels, in order.
      floor: minimum seconds of one iteration. It is the largest of three times: that of non-overlapping
        kernels in sequence, that of all memory traffic, and that of all traffic over the links, since
        copies and collectives may overlap with other kernels.
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


def count_program(text: str, chip: Datasheet, devices: int, program: str) -> list[Part]:
    """Counts a compiled program.

    Args:
      text: `jax.stages.Compiled.as_text()`.
      chip: data sheet with the bandwidth and rates to use.
      devices: number of devices of the program.
      program: name for loops outside all of SCOPES.

    Returns:
      The loops in order, then the rest.
    """
    module = parse(text)
    counter = Counter(module, chip, devices)

    def part(name: str, trips: int | None, computation: str) -> Part:
        kernels = tuple(counter.kernels(computation))
        alone = sum(kernel.floor for kernel in kernels if not kernel.overlaps)
        moved = sum(kernel.bytes for kernel in kernels) / chip.bandwidth
        sent = sum(kernel.sent for kernel in kernels) / chip.link
        return Part(name, trips, kernels, max(alone, moved, sent))

    parts, seen = [], collections.Counter()
    for name, trips, body in _loops(counter, module.entry, program):
        seen[name] += 1
        unique = f"{name} {seen[name]}" if seen[name] > 1 else name
        parts.append(part(unique, trips, body))
    return [*parts, part(REST, 1, module.entry)]


def _loops(
    counter: Counter, computation: str, program: str, outer: str = ""
) -> Iterator[tuple[str, int | None, str]]:
    """Yields (name, iterations, body) of the loops in a computation, outer loops before inner ones."""
    for instruction in counter.module.computations[computation].values():
        if instruction.opcode == "while":
            body, path = instruction.attribute("body"), instruction.op_name.split("/")
            name = next((scope for scope in SCOPES if scope in path), program)
            name = f"{outer}/inner" if outer else name
            trips = re.search(r'"known_trip_count":\{"n":"(\d+)"', instruction.attributes)
            yield name, int(trips[1]) if trips else None, body
            yield from _loops(counter, body, program, name)
        elif instruction.opcode in ("call", "conditional"):
            for called in counter.called(instruction):
                yield from _loops(counter, called, program, outer)


def _iterations(parts: Sequence[Part], trips: Mapping[str, int]) -> Iterator[tuple[Part, int]]:
    """Yields each part and how often it runs in the whole program."""
    times = {}
    for part in parts:
        count = part.trips if part.trips is not None else trips.get(part.name, 1)
        times[part.name] = count * times.get(part.name.rpartition("/")[0], 1)
        yield part, times[part.name]


def seconds(parts: Sequence[Part], trips: Mapping[str, int]) -> float:
    """Returns the minimum time of a whole program.

    Args:
      parts: result of `count_program`.
      trips: iterations, by name, of loops whose number is known only at run time; 1 for missing names.
    """
    return sum(count * part.floor for part, count in _iterations(parts, trips))


def collectives(parts: Sequence[Part], trips: Mapping[str, int]) -> tuple[int, int]:
    """Returns a whole program's number of collectives and their operand bytes per device; see `seconds`."""
    number = operand_bytes = 0
    for part, count in _iterations(parts, trips):
        number += count * len(part.collectives)
        operand_bytes += count * sum(kernel.exchanged for kernel in part.collectives)
    return number, operand_bytes
