"""Compares a run across devices and processes, and when it moves between them while it runs.

    python -m benchmarks.elastic [--objectives at,trades,streamed] [--layouts '2x4*,1x8 then*']

Trains 20 steps of wrn-10-1 on digits in float64 with RWP, through main.py, with a checkpoint every 5 steps;
`streamed` is AT with extra images that are read from disk.
1x8 means 8 devices in one process, 2x4 two processes with 4 devices each that communicate over loopback.
"A then B" is stopped by SIGTERM on A after the first epoch and continued on B. Prints the largest error of
any array of the final state (weights, running statistics, momentum) against the result on one device,
relative to the array's largest entry, and whether pmap and shard_map end with the same bits. Exits with 1
if an error exceeds 1e-10.
"""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np

from rwp_jax.data.writing import write_set
from rwp_jax.distributed.preemption import EXIT_CODE
from rwp_jax.errors import Parser
from rwp_jax.names import matches
from rwp_jax.runs.checkpoint import Checkpoints
from rwp_jax.runs.layout import SUMMARY
from rwp_jax.runs.metrics import FILE

ROOT = pathlib.Path(__file__).parents[1]
OVERRIDES = {
    "dtype": "float64",
    "epochs": 2,
    "epoch_examples": 160,
    "batch_size": 16,
    "checkpoint_steps": 5,
    "attack.steps": 3,
    "weight_perturbation.steps": 3,
    "evaluation.steps": 1,
    "evaluation.batch_size": 120,
    "evaluation.train_examples": 0,
}
CONFIGS = {
    "at": "digits_at_rwp.py:full",
    "trades": "digits_trades_rwp.py",
    "streamed": "digits_at_rwp.py:full",
}
REFERENCE = "1x1"
LAYOUTS = (
    REFERENCE,
    "1x8",
    "1x8 shard_map",
    "2x4",
    "2x4 shard_map",
    "1x1 then 1x8",
    "1x8 then 1x1",
    "1x8 then 2x4",
    "2x4 then 1x1",
)
BOUND = 1e-10


def commands(config: str, layout: str, directory: pathlib.Path) -> list[list[str]]:
    """Returns the command of each process of a layout such as `2x4 shard_map`."""
    shape, _, mode = layout.partition(" ")
    processes = int(shape.split("x")[0])
    overrides = [f"--config.{key}={value}" for key, value in OVERRIDES.items()]
    command = [sys.executable, "main.py", f"--config=configs/{config}", *overrides]
    command += [f"--config.parallel={mode or 'pmap'}", f"--workdir={directory}"]
    if processes == 1:
        return [command]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        command.append(f"--coordinator=127.0.0.1:{free.getsockname()[1]}")
    return [[*command, f"--processes={processes}", f"--process_id={i}"] for i in range(processes)]


def write_extra_images(directory: pathlib.Path) -> pathlib.Path:
    """Writes 500 random images with labels as a set that training streams; returns its directory."""
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(500, 8, 8, 1), dtype=np.uint8)
    np.savez(directory / "extra.npz", image=images, label=rng.integers(10, size=500))
    write_set(directory / "extra.npz", directory / "extra")
    return directory / "extra"


def log_of(directory: pathlib.Path, process: int) -> pathlib.Path:
    return directory.with_name(f"{directory.name}.log{process}")


def start(commands: list[list[str]], layout: str, directory: pathlib.Path):
    """Starts the processes; their output is appended to logs next to the directory."""
    devices = layout.partition(" ")[0].split("x")[1]
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": devices, "JAX_PLATFORMS": "cpu"}
    return [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=log_of(directory, i).open("a"),
            stderr=subprocess.STDOUT,
        )
        for i, command in enumerate(commands)
    ]


def wait_for_an_epoch(directory: pathlib.Path, process: subprocess.Popen) -> None:
    metrics = directory / FILE
    while process.poll() is None and not (metrics.exists() and metrics.read_text()):
        time.sleep(0.01)


def run(config: str, layout: str, directory: pathlib.Path, *arguments: str) -> list[np.ndarray]:
    """Runs a layout to its end, with further arguments; returns the arrays of the final state."""
    parts = layout.split(" then ")
    for part in parts:
        every = [[*command, *arguments] for command in commands(config, part, directory)]
        processes = start(every, part, directory)
        if part is not parts[-1]:
            wait_for_an_epoch(directory, processes[0])
            processes[-1].send_signal(signal.SIGTERM)
        # A part that ends before its signal leaves nothing to continue, which is also an error.
        expected = 0 if part is parts[-1] else EXIT_CODE
        for i, process in enumerate(processes):
            if process.wait() != expected:
                said = log_of(directory, i).read_text()
                raise SystemExit(f"{layout}: process {i} exited with {process.returncode}:\n{said}")
    assert (directory / SUMMARY).exists()
    checkpoints = Checkpoints(directory)
    return jax.tree.leaves(checkpoints.load(checkpoints.find("last")))


def difference(arrays: list[np.ndarray], others: list[np.ndarray]) -> float:
    """Returns the largest difference over all arrays, each relative to its largest entry."""
    relative = lambda a, b: np.abs(a - b).max(initial=0) / max(np.abs(b).max(initial=0), 1e-300)
    return float(max(map(relative, arrays, others)))


def measure(objective: str, layouts: list[str], directory: pathlib.Path) -> dict[str, list]:
    """Prints a line for each layout; returns the final arrays by layout."""
    final = {}
    arguments = []
    if objective == "streamed":
        arguments.append(f"--config.extra_data.path={write_extra_images(directory)}")
    for layout in [REFERENCE, *(layout for layout in layouts if layout != REFERENCE)]:
        name = f"{objective}_{layout.replace(' ', '_')}"
        final[layout] = run(CONFIGS[objective], layout, directory / name, *arguments)
        if layout == REFERENCE:
            continue
        line = f"{objective:8}  {layout:14}  {difference(final[layout], final[REFERENCE]):.1e}"
        pmap = final.get(layout.removesuffix(" shard_map"))
        if pmap and layout.endswith("shard_map"):
            same = all(map(np.array_equal, final[layout], pmap))
            line += "  same bits as pmap" if same else "  BITS DIFFER FROM PMAP"
        print(line, flush=True)
    return final


def main() -> int:
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--objectives", default="*", help="shell patterns, comma-separated, of at, trades, streamed"
    )
    parser.add_argument("--layouts", default="*", help="shell patterns, comma-separated")
    args = parser.parse_args()
    objectives = [objective for objective in CONFIGS if matches(objective, args.objectives)]
    layouts = [layout for layout in LAYOUTS if matches(layout, args.layouts)]
    for name, found, all_names in (
        ("objectives", objectives, CONFIGS),
        ("layouts", layouts, LAYOUTS),
    ):
        if not found:
            given = getattr(args, name)
            parser.error(f"--{name}={given} matches none of {', '.join(all_names)}")
    largest = 0.0
    with tempfile.TemporaryDirectory() as temporary:
        for objective in objectives:
            final = measure(objective, layouts, pathlib.Path(temporary))
            largest = max(
                largest, *(difference(final[layout], final[REFERENCE]) for layout in final)
            )
    print(f"largest difference {largest:.1e}, bound {BOUND:g}")
    return 0 if largest < BOUND else 1


if __name__ == "__main__":
    sys.exit(main())
