"""Times RWP and PGD on the CPU with `flax.linen.Conv` as it is, and with `rwp_jax.conv_general_dilated`.

    python -m benchmarks.loops

XLA's CPU backend computes the gradients of its own convolution slowly in loops. Runs alternate in one
process; it prints milliseconds, and the ratio of the medians.
"""

import statistics
import sys
import time
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax

import rwp_jax

BATCH, STEPS, REPEATS = 128, 10, 5


class Network(nn.Module):
    """Two convolutions with BatchNorm and two dense layers, for images [N, 8, 8, 1]."""

    conv: dict

    @nn.compact
    def __call__(self, x):
        for features, stride in ((32, 1), (64, 2)):
            x = nn.Conv(features, (3, 3), strides=stride, use_bias=False, **self.conv)(x)
            x = nn.relu(nn.BatchNorm(use_running_average=False)(x))
        return nn.Dense(10)(nn.relu(nn.Dense(64)(x.reshape(len(x), -1))))


def programs(conv: dict) -> tuple[dict, Any]:
    """Returns the compiled functions of the parameters, by name, and the parameters."""
    rng = np.random.default_rng(0)
    x, y = rng.random((BATCH, 8, 8, 1), np.float32), rng.integers(0, 10, BATCH)
    network = Network(conv)
    params = network.init(jax.random.key(0), x)["params"]
    logits = lambda params, x: network.apply({"params": params}, x, mutable="batch_stats")[0]
    loss = lambda params: optax.softmax_cross_entropy_with_integer_labels(logits(params, x), y)
    rwp = rwp_jax.make_weight_perturbation("rwp", gamma=0.01, steps=STEPS, c_min=float("inf"))
    threat_model = rwp_jax.make_threat_model("l_inf", 0.1)

    def pgd(params):
        attacked = lambda x: logits(params, x)
        return rwp_jax.pgd(attacked, x, y, threat_model, steps=STEPS, step_size=0.02)

    functions = {"RWP": lambda p: rwp_jax.perturb_and_differentiate(loss, p, rwp), "PGD": pgd}
    return {name: jax.jit(f).lower(params).compile() for name, f in functions.items()}, params


def milliseconds(program, params) -> float:
    start = time.perf_counter()
    jax.block_until_ready(program(params))
    return 1e3 * (time.perf_counter() - start)


def main() -> None:
    if jax.default_backend() != "cpu":
        sys.exit(
            "benchmarks.loops: needs JAX_PLATFORMS=cpu: on GPUs and TPUs both are XLA's convolution"
        )
    kinds = {"XLA": {}, "ours": {"conv_general_dilated": rwp_jax.conv_general_dilated}}
    made = {kind: programs(conv) for kind, conv in kinds.items()}
    for name in ("RWP", "PGD"):
        times = {kind: [] for kind in kinds}
        for _ in range(REPEATS + 1):  # the first is not counted
            for kind, (compiled, params) in made.items():
                times[kind].append(milliseconds(compiled[name], params))
        xla, ours = (statistics.median(times[kind][1:]) for kind in kinds)
        print(
            f"{name}, {STEPS} steps: {xla:.0f} ms with XLA's, {ours:.0f} with ours, {xla / ours:.1f} times"
        )


if __name__ == "__main__":
    main()
