"""Measures the rate of large matrix products, the reference for a step's utilisation."""

import time

import jax
import jax.numpy as jnp

CHAIN = 10  # products that depend on each other


def rate(dtype: str, repeats: int = 5) -> float:
    """Returns the best measured floating-point operations per second of a large matrix product on a device.

    float32 uses JAX's default precision, as the networks do; on recent NVIDIA GPUs this is TF32.
    """
    size = 2048 if jax.default_backend() == "cpu" else 8192
    keys = jax.random.split(jax.random.key(0))
    x, w = (jax.random.normal(key, (size, size), jnp.dtype(dtype)) for key in keys)
    w = w / size**0.5  # keeps the products' magnitude constant

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
