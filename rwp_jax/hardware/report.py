"""Formats the counts of compiled programs as text and as JSON."""

import re
from collections.abc import Sequence

from rwp_jax.hardware.counts import Part
from rwp_jax.hardware.datasheets import GIB
from rwp_jax.hardware.programs import CompiledProgram
from rwp_jax.hardware.topology import Hardware, version

COSTLIEST = 10  # kernels shown
PACKAGES = ("jax", "jaxlib", "jax-cuda12-plugin", "jax-cuda13-plugin", "libtpu")


def describe(program: CompiledProgram, hardware: Hardware) -> str:
    """Describes a program's loops, costliest kernels, memory and collectives in a few lines of text."""
    chip = hardware.chip
    lines = [
        f"{program.name}, batch {program.batch_size}, on {hardware.devices} x {chip.name}, compiled in "
        f"{program.seconds:.0f} s; per device and iteration:",
        "loop               kernels        MB   GFLOP  floor ms  of which reductions   collectives",
        *map(_line, program.parts),
        f"memory: {program.memory / GIB:.2f} of {chip.gigabytes} GB per device, "
        f"of which arguments {program.arguments / GIB:.2f}",
        "costliest kernels by floor:",
    ]
    every = [(kernel.floor, part.name, kernel) for part in program.parts for kernel in part.kernels]
    every.sort(key=lambda entry: -entry[0])
    for floor, part, kernel in every[:COSTLIEST]:
        lines.append(
            f"  {1e6 * floor:8.1f} us  {kernel.bytes / 1e6:8.1f} MB  {kernel.flops / 1e9:7.2f} GFLOP  "
            f"{part:10}  {kernel.name}  {_origin(kernel.op_name)}"
        )
    return "\n".join(lines)


def _line(part: Part) -> str:
    reductions = [kernel for kernel in part.kernels if kernel.reduces]
    exchanges = part.collectives
    moved = sum(kernel.bytes for kernel in reductions)
    exchanged = sum(kernel.exchanged for kernel in exchanges)
    trips = f"{part.name} x {part.trips}" if part.trips and part.trips > 1 else part.name
    text = (
        f"{trips:18} {len(part.kernels):7}  {part.bytes / 1e6:8.1f}  {part.flops / 1e9:6.1f}  "
        f"{1e3 * part.floor:8.3f}  {len(reductions):5} with {moved / 1e6:.0f} MB"
    )
    return f"{text}   {len(exchanges)} of {exchanged / 1e6:.2f} MB" if exchanges else text


def _origin(op_name: str) -> str:
    """Returns the last parts of a kernel's origin, without the names of JAX's transformations."""
    parts = [
        p for p in op_name.split("/") if p not in ("body", "closed_call", "branch_0_fun", "cond")
    ]
    return re.sub(r"jvp\((.*?)\)", r"\1", "/".join(parts[-4:]))


def figures(programs: Sequence[CompiledProgram], hardware: Hardware) -> dict:
    """Returns the content of `describe` as JSON; the last loop of each program is its rest.

    Bytes and operations are per device and iteration. `memory_bytes` is that of the largest program.
    `collectives` counts each collective of the programs once, and its operand bytes per device.
    """
    loops = [_figures(part, program) for program in programs for part in program.parts]
    return {
        "target": hardware.target,
        "device": hardware.chip.name,
        "devices": hardware.devices,
        "versions": {p: v for p in PACKAGES if (v := version(p))},
        "loops": loops,
        "memory_bytes": max(program.memory for program in programs),
        "device_memory_bytes": int(hardware.chip.memory),
        "collectives": {
            "number": sum(loop["collectives"]["number"] for loop in loops),
            "bytes": sum(loop["collectives"]["bytes"] for loop in loops),
        },
    }


def _figures(part: Part, program: CompiledProgram) -> dict:
    reductions = [kernel for kernel in part.kernels if kernel.reduces]
    return {
        "name": part.name,
        "program": program.name,
        "batch_size": program.batch_size,
        "trips": part.trips,
        "kernels": len(part.kernels),
        "bytes": part.bytes,
        "flops": part.flops,
        "floor_ms": 1e3 * part.floor,
        "reductions": {
            "kernels": len(reductions),
            "bytes": sum(kernel.bytes for kernel in reductions),
        },
        "collectives": {
            "number": len(part.collectives),
            "bytes": sum(kernel.exchanged for kernel in part.collectives),
        },
    }
