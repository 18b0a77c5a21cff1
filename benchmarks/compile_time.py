"""Times the compilation of a whole AT-RWP step, at the first start and at a second one.

    python -m benchmarks.compile_time [--models preactresnet18,wrn-34-10] [--batch-size 128]

Each start is a separate process; both share a fresh persistent compilation cache. Tracing, which the cache
does not save, is reported separately.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

import jax
import jax.numpy as jnp

from benchmarks.recipe import rwp_recipe
from rwp_jax.errors import Parser
from rwp_jax.models.convolution import prefer_eigen
from rwp_jax.training.train_step import TrainingSet, init_state, make_train_step


def trace_step(model: str, batch_size: int):
    """Traces the step that the trainer runs."""
    recipe = rwp_recipe(model, c_min=1.7)
    step = make_train_step(recipe, lambda keys, images: images, lambda step: 0.1)
    state = jax.eval_shape(lambda key: init_state(recipe, key, (32, 32, 3)), jax.random.key(0))
    data = TrainingSet(
        jax.ShapeDtypeStruct((50000, 32, 32, 3), jnp.uint8),
        jax.ShapeDtypeStruct((50000,), jnp.int32),
        jax.ShapeDtypeStruct((50000,), jnp.float32),
    )
    indices = jax.ShapeDtypeStruct((batch_size,), jnp.int32)
    return jax.jit(step, donate_argnums=0).lower(state, data, indices, jax.random.key(0))


def compile_step(model: str, batch_size: int) -> dict[str, float]:
    """Traces and compiles that step without running it; returns the seconds of both."""
    begin = time.perf_counter()
    lowered = trace_step(model, batch_size)
    traced = time.perf_counter()
    lowered.compile()
    return {"trace": traced - begin, "compile": time.perf_counter() - traced}


def start(model: str, batch_size: int, cache: str) -> dict[str, float]:
    """Measures one start in a separate process."""
    command = [sys.executable, "-m", "benchmarks.compile_time", "--child", "--models", model]
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": cache}
    out = subprocess.run(
        [*command, "--batch-size", str(batch_size)],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(out.stdout)


def main():
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="preactresnet18,wrn-34-10")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        prefer_eigen()
        print(json.dumps(compile_step(args.models, args.batch_size)))
        return
    print("model            trace s  compile s: first start  second start")
    for model in args.models.split(","):
        with tempfile.TemporaryDirectory() as cache:
            first, second = (start(model, args.batch_size, cache) for _ in range(2))
        print(
            f"{model:16} {first['trace']:7.1f}  {first['compile']:22.1f}  {second['compile']:12.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
