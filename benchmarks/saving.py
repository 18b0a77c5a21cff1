"""Measures the time a checkpoint costs the training loop, and the time to write it.

    python -m benchmarks.saving [--model preactresnet18] [--repeats 5]

Parameters, momentum and statistics are saved as the trainer saves them. `copy` is the time to copy them to
the host, `stall` the further time of `Checkpoints.save` while nothing else is being written, `write` the
remaining time until they are on disk, which training does not wait for.
"""

import pathlib
import statistics
import tempfile
import time

import jax
import numpy as np

from benchmarks.recipe import rwp_recipe
from rwp_jax.distributed import devices
from rwp_jax.errors import Parser
from rwp_jax.runs.checkpoint import Checkpoints
from rwp_jax.training.train_step import init_state


def main():
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="preactresnet18")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    state = init_state(rwp_recipe(args.model, 1.7), jax.random.key(0), (32, 32, 3))
    state = jax.block_until_ready(devices.replicate(state))
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        checkpoints = Checkpoints(pathlib.Path(directory))
        for i in range(args.repeats + 1):
            # Fresh arrays, because JAX caches the host copy of an array.
            state = jax.block_until_ready(jax.tree.map(lambda leaf: leaf + 0, state))
            begin = time.perf_counter()
            jax.tree.map(lambda leaf: np.array(leaf), state)
            copied = time.perf_counter()
            state = jax.block_until_ready(jax.tree.map(lambda leaf: leaf + 0, state))
            record = {"step": i, "epoch": i, "pgd_accuracy": i / 1000, "natural_accuracy": 0.5}
            saving = time.perf_counter()
            checkpoints.save(state, record)
            saved = time.perf_counter()
            checkpoints.wait()
            rows.append((copied - begin, saved - saving, time.perf_counter() - saved))
        checkpoints.close()
    copy, save, write = (1e3 * statistics.median(column) for column in zip(*rows[1:], strict=True))
    print(
        f"{args.model}, {size / 1e6:.0f} MB on {jax.devices()[0].device_kind}: copy {copy:.0f} ms, "
        f"stall {save - copy:.0f} ms, write {write:.0f} ms"
    )


if __name__ == "__main__":
    main()
