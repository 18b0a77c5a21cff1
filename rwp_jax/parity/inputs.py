"""Regenerates weights, images and random starts of the recorded cases from seeds, with NumPy alone.

The recording program used exactly these draws, so none may change.
"""

import zlib

import numpy as np


def tensor(name: str, shape, seed: int = 0) -> np.ndarray:
    """Draws the float64 value of the state-dict entry `name`, in PyTorch's layout."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    z = rng.standard_normal(shape)
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "running_mean":
        return 0.1 * z
    if leaf == "running_var":
        return 0.5 + rng.random(shape)
    if len(shape) == 4:
        return z * np.sqrt(2.0 / (shape[1] * shape[2] * shape[3]))
    if len(shape) == 2:
        return z / np.sqrt(shape[1])
    if leaf == "weight":  # a BatchNorm scale
        return 1.0 + 0.1 * z
    return 0.1 * z


def images(n: int, seed: int = 0, size: int = 32) -> np.ndarray:
    """Draws 8-bit images [n, size, size, 3] in [0, 1]: smooth, noisy fields, some pixels at 0 and 1."""
    rng = np.random.default_rng([seed, 7])
    yy, xx = np.mgrid[0:size, 0:size] / size
    out = np.empty((n, size, size, 3))
    for i in range(n):
        for c in range(3):
            f, p = rng.uniform(0.5, 3, (4, 2)), rng.uniform(0, 2 * np.pi, 4)
            waves = zip(f, p, strict=True)
            out[i, :, :, c] = sum(np.sin(2 * np.pi * (a * yy + b * xx) + q) for (a, b), q in waves)
    out = 0.5 + 0.15 * out + 0.02 * rng.standard_normal(out.shape)
    return np.round(np.clip(out, 0, 1) * 255) / 255


def uniform(shape, epsilon: float, noise_seed: int) -> np.ndarray:
    """Draws from U(-epsilon, epsilon)."""
    return np.random.default_rng([noise_seed, 13]).uniform(-epsilon, epsilon, shape)


def direction(shape, noise_seed: int) -> np.ndarray:
    """Draws from N(0, 1)."""
    return np.random.default_rng([noise_seed, 17]).standard_normal(shape)


def radius(n: int, noise_seed: int) -> np.ndarray:
    """Draws from U(0, 1), [n, 1, 1, 1]."""
    return np.random.default_rng([noise_seed, 19]).uniform(0, 1, (n, 1, 1, 1))


def start(x: np.ndarray, norm: str, epsilon: float, noise_seed: int) -> np.ndarray:
    """Draws the first perturbation of AT and evaluation, in ball and box, shaped like x [n, H, W, C]."""
    if norm == "l_inf":
        delta = uniform(x.shape, epsilon, noise_seed)
    else:
        z, r = direction(x.shape, noise_seed), radius(len(x), noise_seed)
        delta = z * r / np.sqrt((z**2).sum((1, 2, 3), keepdims=True)) * epsilon
    return np.maximum(np.minimum(delta, 1 - x), 0 - x)


def near(x: np.ndarray, noise_seed: int) -> np.ndarray:
    """Draws the first perturbation of TRADES and RST training, shaped like x, not clipped."""
    return 0.001 * direction(x.shape, noise_seed)
