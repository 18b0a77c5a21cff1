"""Exact projection of images into the ball around the clean image and the box [0, 1]."""

import numpy as np


def sizes(delta: np.ndarray, norm: str) -> np.ndarray:
    """Norms [N] of perturbations [N, H, W, C]."""
    if norm == "l_2":
        return np.sqrt(np.square(delta).sum((1, 2, 3)))
    return np.abs(delta).max((1, 2, 3)) if norm == "l_inf" else np.abs(delta).sum((1, 2, 3))


def into_ball(x_adv: np.ndarray, x: np.ndarray, norm: str, epsilon: float) -> np.ndarray:
    """Projects images [N, H, W, C] into box and ball (`l_inf`, `l_2`, `l_1`), exactly despite rounding."""
    x64 = x.astype(np.float64)
    delta = np.clip(x_adv, 0, 1).astype(np.float64) - x64
    if norm == "l_inf":
        delta = np.clip(delta, -epsilon, epsilon)
    else:
        lengths = sizes(delta, norm)[:, None, None, None]
        delta *= np.minimum(1, epsilon / np.maximum(lengths, 1e-300))
    image = (x64 + delta).astype(np.float32)
    beyond = np.abs(image.astype(np.float64) - x64) > np.abs(delta)
    return np.where(beyond, np.nextafter(image, x), image)


def check_inside(x_adv: np.ndarray, x: np.ndarray, norm: str, epsilon: float) -> None:
    """Raises AssertionError unless every image [N, H, W, C] is in [0, 1] and in the ball around x."""
    size = sizes(x_adv.astype(np.float64) - x, norm)
    if not ((x_adv >= 0) & (x_adv <= 1)).all() or not (size <= epsilon * (1 + 1e-12)).all():
        raise AssertionError(f"an image left [0, 1] or the ball: {norm} distance {size.max()}")
