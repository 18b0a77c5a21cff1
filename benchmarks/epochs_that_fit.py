"""Prints how many epochs of AT, AT-AWP and AT-RWP in sequence fit into a time, by measured steps.

    python -m benchmarks.epochs_that_fit --step_time STEP_TIME.json --seconds 300 [--least 4]
        [--test_examples 2000] [--every 4]

STEP_TIME.json is the output of `benchmarks.step_time --evaluation --json`; a step's time is fitted as a
linear function of k. AT-RWP is assumed to need K2 weight-ascent steps in every training step. The result is
a multiple of 4, so that the learning rate drops between epochs at 1/2 and 3/4, but no less than --least.
"""

import json
import math
import pathlib

import numpy as np

from rwp_jax.data.sources import NAMED
from rwp_jax.errors import Parser

K = {"AT": 0, "AT-AWP": 1, "AT-RWP": 10}
STARTING = 20.0  # seconds before a run compiles and after it ends


def main():
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--step_time", type=pathlib.Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--least", type=int, default=4)
    parser.add_argument("--test_examples", type=int, default=NAMED["cifar10"].test)
    parser.add_argument("--every", type=int, default=1, help="epochs between evaluations")
    args = parser.parse_args()
    measured = json.loads(args.step_time.read_text())
    rows, evaluation = measured["rows"], measured.get("evaluation")
    if len(rows) < 2 or not evaluation:
        parser.error(f"--step_time={args.step_time} must have two values of k and --evaluation")
    slope, intercept = np.polyfit([r["k"] for r in rows], [r["seconds"] for r in rows], 1)
    steps = NAMED["cifar10"].train // rows[0]["batch_size"]
    batches = math.ceil(args.test_examples / evaluation["batch_size"])
    an_epoch = sum(
        steps * (intercept + slope * k) + batches * evaluation["seconds"] / args.every
        for k in K.values()
    )
    left = args.seconds - len(K) * (STARTING + rows[0]["compile_seconds"])
    epochs = int(left / an_epoch)
    print(max(args.least, epochs - epochs % 4))


if __name__ == "__main__":
    main()
