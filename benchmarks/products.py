"""How fast this machine multiplies large matrices, which is what a step's speed is held against."""

import time

import jax
import jax.numpy as jnp

CHAIN = 10  # products that wait for each other


def rate(dtype: str, repeats: int = 5) -> float:
    """Floating-point operations a second of a large matrix product on one device, at its best.

    float32 is computed as networks are here: with JAX's default precision, which on recent NVIDIA GPUs is
    TF32.
    """
    size = 2048 if jax.default_backend() == "cpu" else 8192
    keys = jax.random.split(jax.random.key(0))
    x, w = (jax.random.normal(key, (size, size), jnp.dtype(dtype)) for key in keys)
    w = w / size**0.5  # so that the products keep their size

    @jax.jit
    def chain(x):
        for _ in range(CHAIN):
            x = x @ w
        return x

    chain(x).block_until_ready()
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        chain(x).block_until_ready()
        seconds.append(time.perf_counter() - begin)
    return CHAIN * 2 * size**3 / min(seconds)
