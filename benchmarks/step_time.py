"""Time of one RWP training step, ours over a PyTorch step that works as the authors' code does.

    python -m benchmarks.step_time [--objective at|trades] [--cases preactresnet18:16,wrn-10-1:64]
        [--repeats 5] [--json FILE]

Both run in this process, in turn, on the same cores, in float32 with K1 = K2 = 10: with the gate wide
open (c_min = inf) and closed (c_min = 0, where ours leaves the loop at once). Prints the ratio of the
medians, pair by pair its range, and what compilation took. Needs torch.
"""

import argparse
import json
import os
import platform
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks.recipe import rwp_recipe
from benchmarks.torch_reference import STEPS
from rwp_jax.models.convolution import prefer_eigen
from rwp_jax.train_step import attack_and_update, init_state


def our_step(objective, model, c_min, images, labels):
    """Returns a function that runs and waits for one step, and the seconds its compilation took."""
    recipe = rwp_recipe(model, c_min, objective)
    x, y = jnp.asarray(images), jnp.asarray(labels)
    state = init_state(recipe, jax.random.key(0), images.shape[1:])
    keys = jax.random.split(jax.random.key(1), len(x))

    def step(state):
        start = recipe.threat_model.sample(keys, x)
        state, _, perturbed = attack_and_update(recipe, state, x, y, start)
        return state, perturbed.loss.mean(), perturbed.steps

    begin = time.perf_counter()
    compiled = jax.jit(step, donate_argnums=0).lower(state).compile()
    seconds = time.perf_counter() - begin

    def run():
        nonlocal state
        state, loss, steps = compiled(state)
        return float(loss), int(steps)

    return run, seconds


def measure(objective, model, batch_size, c_min, repeats):
    rng = np.random.default_rng(0)
    images = rng.random((batch_size, 32, 32, 3), np.float32)
    labels = rng.integers(0, 10, batch_size)
    ours, compile_seconds = our_step(objective, model, c_min, images, labels)
    step = STEPS[objective](model, c_min)
    x = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    theirs = lambda: step(x, torch.from_numpy(labels))

    def seconds(function):
        begin = time.perf_counter()
        result = function()
        return time.perf_counter() - begin, result

    seconds(ours), seconds(theirs)  # warm up
    pairs = []
    for _ in range(repeats):
        (a, (_, steps)), (b, _) = seconds(ours), seconds(theirs)
        pairs.append((a, b))
    ratios = [a / b for a, b in pairs]
    return {
        "objective": objective,
        "model": model,
        "batch_size": batch_size,
        "c_min": c_min,
        "perturbation_steps": steps,
        "ratio": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "seconds_ours": statistics.median(a for a, _ in pairs),
        "seconds_torch": statistics.median(b for _, b in pairs),
        "compile_seconds": compile_seconds,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", default="preactresnet18:16,wrn-10-1:64", help="MODEL:BATCH,...")
    parser.add_argument("--objective", choices=STEPS, default="at")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", help="also write the figures here")
    args = parser.parse_args()
    prefer_eigen()
    torch.set_num_threads(os.cpu_count())

    print(
        f"{platform.machine()}, {os.cpu_count()} cores; jax {jax.__version__}, torch {torch.__version__}"
    )
    print("model            batch  gate    k  ours s  torch s  ours/torch (range)    compile s")
    rows = []
    for case in args.cases.split(","):
        model, batch_size = case.split(":")
        for c_min in (float("inf"), 0.0):
            row = measure(args.objective, model, int(batch_size), c_min, args.repeats)
            rows.append(row)
            print(
                f"{model:16} {row['batch_size']:5}  {'open' if c_min else 'closed':6} "
                f"{row['perturbation_steps']:2}  {row['seconds_ours']:6.2f}  {row['seconds_torch']:7.2f}  "
                f"{row['ratio']:.2f} ({row['ratio_min']:.2f}-{row['ratio_max']:.2f})      "
                f"{row['compile_seconds']:8.1f}",
                flush=True,
            )
    if args.json:
        with open(args.json, "w") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
