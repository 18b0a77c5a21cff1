"""Conversion between the layouts [N, H, W, C] and [N, C, H, W], which PyTorch uses."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from rwp_jax.attacks.arguments import check_logits, is_known, logits_fn_named
from rwp_jax.errors import check_choice

LAYOUTS = ("NHWC", "NCHW")


class Layout:
    """Converts between the caller's layout and [N, H, W, C]."""

    def __init__(self, layout: str):
        """Raises InputError unless the layout is one of LAYOUTS."""
        self._turns = check_choice("layout", layout, LAYOUTS) == "NCHW"

    def shape(self, image_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Returns (H, W, C) in the order of the caller's layout."""
        height, width, channels = image_shape
        return (channels, height, width) if self._turns else (height, width, channels)

    def images(self, x):
        """Returns the caller's images as [N, H, W, C]; unchanged without four axes, for later checks."""
        if not self._turns or not is_known(x):
            return x
        x = np.asarray(x)
        return x.transpose(0, 2, 3, 1) if x.ndim == 4 else x

    def back(self, x: np.ndarray) -> np.ndarray:
        """Returns images [N, H, W, C] in the caller's layout."""
        return np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if self._turns else x

    def network(self, logits_fn: Callable) -> Callable:
        """Returns the network as a function of [B, H, W, C]; its errors show the caller's shapes."""
        if not self._turns:
            return logits_fn

        def turned(x, *key):
            x = jnp.transpose(x, (0, 3, 1, 2))
            with logits_fn_named(x.shape, "(images, key)" if key else "(images)"):
                logits = logits_fn(x, *key)
            check_logits(logits, x.shape)
            return logits

        return turned
