"""Measures the share of a run's time that checkpoints, metrics and logging take.

    python -m benchmarks.overhead [--config configs/digits_at_rwp.py:full] [--epochs 30]

Adds up the time that training waits for copies of the state, metrics.jsonl, TensorBoard and printed lines,
and the CPU time of the thread that writes checkpoints, which competes for the same cores. Both are given as
a share of the run's time from the second epoch on, when everything is compiled.
"""

import collections
import functools
import pathlib
import tempfile
import time

from rwp_jax.command_line.config_file import load_config
from rwp_jax.distributed import processes
from rwp_jax.errors import Parser
from rwp_jax.models.convolution import prefer_eigen
from rwp_jax.runs.checkpoint import Checkpoints
from rwp_jax.runs.metrics import MetricsWriter
from rwp_jax.training import trainer


def main():
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/digits_at_rwp.py:full")
    parser.add_argument("--epochs", type=int, default=30)
    args = parser.parse_args()
    config = load_config(args.config)
    config.epochs = args.epochs
    prefer_eigen()
    spent: dict[str, float] = collections.Counter()
    begins = []

    def timed(name, function, clock):
        @functools.wraps(function)
        def call(*arguments, **keywords):
            begin = clock()
            result = function(*arguments, **keywords)
            if len(begins) > 1:
                spent[name] += clock() - begin
            return result

        return call

    indices = trainer.epoch_indices

    def epoch_indices(*arguments):
        begins.append(time.perf_counter())
        return indices(*arguments)

    trainer.epoch_indices = epoch_indices
    Checkpoints.save = timed("copies of the state", Checkpoints.save, time.perf_counter)
    MetricsWriter.write = timed("metrics", MetricsWriter.write, time.perf_counter)
    processes.say = timed("lines", processes.say, time.perf_counter)
    Checkpoints._write = timed("writing thread", Checkpoints._write, time.thread_time)
    with tempfile.TemporaryDirectory() as directory:
        trainer.train(config, pathlib.Path(directory) / "run")
    total = time.perf_counter() - begins[1]
    shares = ", ".join(f"{name} {seconds / total:.2%}" for name, seconds in spent.items())
    print(
        f"of {total:.0f} s in {len(begins) - 1} epochs: {shares}; {sum(spent.values()) / total:.2%}"
    )


if __name__ == "__main__":
    main()
