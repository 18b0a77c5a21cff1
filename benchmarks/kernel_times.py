"""Profiles a training step on the available device: time of each kernel beside its minimum time.

    python -m benchmarks.kernel_times [--config configs/cifar10_at_rwp.py] [--model preactresnet18]
        [--batch_size 128] [--dtype bfloat16] [--k 10] [--steps 3] [--show 15] [--json FILE] [--hlo FILE]

The step is that of benchmarks/step_time.py. A kernel of the profile is matched with the instruction of the
compiled program that launched it, whose bytes, operations and floor are counted as by
`benchmarks.compiled`. Per step, the output shows the time that the device was busy, and that of each loop
and each kind of kernel; then the kernels that took most time over all their launches. On a device without
data sheet, such as a CPU, floors are missing.
"""

import collections
import pathlib
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import jax

from benchmarks.our_step import OurStep
from benchmarks.step_time import heading
from rwp_jax.command_line.config_file import load_config
from rwp_jax.errors import Parser
from rwp_jax.files import write_json
from rwp_jax.hardware.counts import Part
from rwp_jax.hardware.kernels import COLLECTIVES, Kernel

UNKNOWN = "not in the program"


class Launch(NamedTuple):
    """A kernel's execution: its name, the program's instruction if known, start and duration in ns."""

    name: str
    instruction: str | None
    start: float
    duration: float


class Total(NamedTuple):
    """All launches of one instruction.

    Attributes:
      loop: name of the loop whose body has it, or of the rest.
      kind: see `kind`.
      name: XLA's name, or the kernel's if the program does not have it.
      kernels: names of the kernels that it launched.
      launches: kernels per training step; an instruction may launch several.
      seconds: their time per training step.
      floor: minimum time per training step, 0 if unknown.
      kernel: the instruction's counts, None if unknown.
    """

    loop: str
    kind: str
    name: str
    kernels: tuple[str, ...]
    launches: float
    seconds: float
    floor: float
    kernel: Kernel | None


def launches(directory: str) -> list[Launch]:
    """Reads the kernels that ran from the profile in a directory: a GPU's streams, or a CPU's threads."""
    (file,) = pathlib.Path(directory).rglob("*.xplane.pb")
    planes = list(jax.profiler.ProfileData.from_file(str(file)).planes)
    on_device = [plane for plane in planes if plane.name.startswith("/device:GPU")]
    found = []
    for plane in on_device or planes:
        for line in plane.lines:
            if on_device and not line.name.startswith("Stream"):
                continue  # summaries of the same kernels
            for event in line.events:
                instruction = next((value for name, value in event.stats if name == "hlo_op"), None)
                if on_device or instruction:
                    found.append(Launch(event.name, instruction, event.start_ns, event.duration_ns))
    return found


def busy(kernels: Iterable[Launch]) -> float:
    """Returns the seconds during which at least one kernel ran."""
    total = end = 0.0
    for kernel in sorted(kernels, key=lambda kernel: kernel.start):
        last = kernel.start + kernel.duration
        total += max(0.0, last - max(kernel.start, end))
        end = max(end, last)
    return total / 1e9


def kind(kernel: Kernel | None) -> str:
    """Names what an instruction does."""
    if kernel is None:
        return UNKNOWN
    if kernel.opcode in COLLECTIVES:
        return "collective"
    if kernel.flops:
        return "matrix products"
    if kernel.opcode in ("copy", "transpose"):
        return "copy"
    return "reduction" if kernel.reduces else "elementwise"


def totals(
    kernels: Sequence[Launch], parts: Sequence[Part], trips: Mapping[str, int], steps: int
) -> list[Total]:
    """Adds up launches of several training steps by instruction, the costliest first.

    Args:
      kernels: what ran.
      parts: counts of the program; see `counts.count_program`.
      trips: iterations per training step of loops, by name; 1 for missing names.
      steps: number of training steps.
    """
    known = {}
    for part in parts:
        for kernel in part.kernels:
            # The name of a fusion's kernel on the device is the instruction's with another punctuation.
            known[kernel.name] = known[_plain(kernel.name)] = part.name, kernel
    times, launched = collections.defaultdict(list), collections.defaultdict(set)
    for launch in kernels:
        name = launch.instruction if launch.instruction in known else _plain(launch.name)
        name = name if name in known else launch.instruction or launch.name
        times[name].append(launch.duration)
        launched[name].add(launch.name)
    rows = []
    for name, durations in times.items():
        loop, kernel = known.get(name, (UNKNOWN, None))
        seconds = sum(durations) / 1e9 / steps
        floor = trips.get(loop, 1) * kernel.floor if kernel else 0.0
        names, count = tuple(sorted(launched[name])), len(durations) / steps
        rows.append(Total(loop, kind(kernel), name, names, count, seconds, floor, kernel))
    return sorted(rows, key=lambda row: -row.seconds)


def _plain(name: str) -> str:
    return name.replace(".", "_").replace("-", "_")


def table(rows: Sequence[Total], show: int) -> str:
    """Formats the times by loop, by kind, and of the costliest kernels."""
    text = ["                                 launches        ms  floor ms"]
    for title, key in (("loop", lambda r: r.loop), ("kind", lambda r: f"{r.loop}: {r.kind}")):
        groups = collections.defaultdict(list)
        for row in rows:
            groups[key(row)].append(row)
        for name, group in sorted(groups.items()):
            text.append(
                f"{title} {name:27} {sum(r.launches for r in group):8.0f}  "
                f"{1e3 * sum(r.seconds for r in group):8.3f}  {1e3 * sum(r.floor for r in group):8.3f}"
            )
    text.append("ms a step  floor ms  launches  kernel")
    for row in rows[:show]:
        origin = row.kernel.op_name[-70:] if row.kernel else ""
        text.append(
            f"{1e3 * row.seconds:9.3f}  {1e3 * row.floor:8.3f}  {row.launches:8.0f}  "
            f"{row.loop} {row.name[:60]} {origin}"
        )
    return "\n".join(text)


def main():
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/cifar10_at_rwp.py")
    parser.add_argument("--model", help="instead of the config's")
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--dtype", default="bfloat16", help="instead of the config's")
    parser.add_argument("--k", type=int, default=10, help="steps of weight ascent")
    parser.add_argument("--steps", type=int, default=3, help="training steps to profile")
    parser.add_argument("--show", type=int, default=15, help="kernels to show")
    parser.add_argument("--json", type=pathlib.Path, help="also write all kernels here")
    parser.add_argument("--hlo", type=pathlib.Path, help="save the compiled text here")
    args = parser.parse_args()
    for name in ("batch_size", "steps", "show"):
        if getattr(args, name) < 1:
            parser.error(f"--{name}={getattr(args, name)} must be at least 1")
    if args.k < 0:
        parser.error(f"--k={args.k} must be at least 0")
    config = load_config(args.config)
    config.model.name = args.model or config.model.name
    config.dtype = args.dtype
    step = OurStep(config, args.batch_size)
    step(args.k)
    alone = step(args.k, args.steps)
    with tempfile.TemporaryDirectory() as directory:
        with jax.profiler.trace(directory):
            step(args.k, args.steps)
        ran = launches(directory)
    trips = {"attack": config.attack.steps, "perturb": args.k + 1}
    rows = totals(ran, step.compiled.parts, trips, args.steps)
    busy_seconds = busy(ran) / args.steps
    content = heading(("jax", "jaxlib"))
    print(
        f"{content['device']} {content['versions']} {config.model.name}, batch {args.batch_size}, "
        f"{config.dtype}, k = {args.k}: {1e3 * alone:.1f} ms a step, "
        f"kernels run for {1e3 * busy_seconds:.1f} ms of it"
    )
    print(table(rows, args.show))
    if args.hlo:
        args.hlo.write_text(step.compiled.text())
    if args.json:
        kernels = [
            {
                "loop": row.loop,
                "kind": row.kind,
                "name": row.name,
                "kernels": row.kernels,
                "op_name": row.kernel.op_name if row.kernel else None,
                "launches": row.launches,
                "seconds": row.seconds,
                "floor_seconds": row.floor,
                "bytes": row.kernel.bytes if row.kernel else None,
                "flops": row.kernel.flops if row.kernel else None,
            }
            for row in rows
        ]
        write_json(
            args.json,
            content | {"seconds": alone, "busy_seconds": busy_seconds, "kernels": kernels},
        )


if __name__ == "__main__":
    main()
