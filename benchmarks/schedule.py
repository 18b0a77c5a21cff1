"""Estimates the minutes of a config's whole schedule from measured steps and the k of a real run.

    python -m benchmarks.schedule --step_time STEP_TIME.json --run RUN [--config configs/cifar10_at_rwp.py]
        [--batch_size 128] [--model preactresnet18]

STEP_TIME.json is the output of `benchmarks.step_time --json`; a step's time is fitted as a linear function
of k by least squares. RUN is a finished run with the same phases of the learning rate, such as the same
config with few epochs; the mean k of each of its phases is used for that phase of the whole schedule.
Evaluation is not included.
"""

import json
import pathlib

import numpy as np

from rwp_jax.command_line.config_file import load_config
from rwp_jax.errors import Parser
from rwp_jax.hardware.cost import data_size
from rwp_jax.runs.metrics import read_metrics


def phases(run: pathlib.Path) -> list[tuple[float, float, int]]:
    """Returns (learning rate, mean k, epochs) of each phase of a run, in order."""
    grouped: dict[float, list[float]] = {}
    records = [record for record in read_metrics(run) if record["split"] == "train"]
    # A record has the rate of its epoch's last step, which is already that of the next phase.
    for before, record in zip(records[:1] + records, records, strict=False):
        rate = float(f"{before['learning_rate']:.3g}")
        grouped.setdefault(rate, []).append(record["perturbation_steps"])
    return [(rate, float(np.mean(ks)), len(ks)) for rate, ks in grouped.items()]


def main():
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--step_time", type=pathlib.Path, required=True)
    parser.add_argument("--run", type=pathlib.Path, required=True)
    parser.add_argument("--config", default="configs/cifar10_at_rwp.py")
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--model", default="preactresnet18")
    args = parser.parse_args()
    rows = json.loads(args.step_time.read_text())["rows"]
    chosen = [
        row for row in rows if (row["model"], row["batch_size"]) == (args.model, args.batch_size)
    ]
    if len(chosen) < 2:
        raise SystemExit(
            f"{args.step_time} must have two values of k of {args.model} at batch size {args.batch_size}"
        )
    slope, intercept = np.polyfit([r["k"] for r in chosen], [r["seconds"] for r in chosen], 1)
    config = load_config(args.config)
    steps = data_size(config).train // args.batch_size
    found = phases(args.run)
    share = config.epochs / sum(epochs for *_, epochs in found)
    total = 0.0
    print("learning rate  mean k  epochs  ms a step  minutes")
    for rate, k, epochs in found:
        seconds = intercept + slope * k
        minutes = epochs * share * steps * seconds / 60
        total += minutes
        print(f"{rate:13g}  {k:6.2f}  {epochs * share:6.1f}  {1e3 * seconds:9.2f}  {minutes:7.1f}")
    print(
        f"{config.epochs} epochs of {steps} steps in {chosen[0]['dtype']}, without evaluation: "
        f"{total:.1f} minutes"
    )


if __name__ == "__main__":
    main()
