"""Forward passes for AutoAttack's verdicts; those of the searches are in `slots`."""

from typing import Any

import jax
import numpy as np
from jax import lax

from rwp_jax.attacks.autoattack.kept import kept_for
from rwp_jax.attacks.autoattack.model import Model
from rwp_jax.distributed import devices


class Forward:
    """images float32 [N, H, W, C] -> logits [N, classes], at the highest precision, on all devices.

    A randomised network draws anew for every batch and on every device.

    Attributes:
      size: batch size, over all devices of this host; the last batch is padded with copies of its first
        image.
      calls: number of batches computed so far; it selects the random draws.
    """

    def __init__(self, model: Model, key: Any, size: int):
        self.size, self.calls, self._key, self._weights = size, 0, key, model.weights

        def make(latest):
            def forward(weights, key, images):
                key = jax.random.fold_in(key, lax.axis_index(devices.AXIS))
                return latest.apply(weights, images, key)

            return devices.over_examples(forward, (False, False, True))

        self._mapped = kept_for(model, ("forward", model.randomized), make)

    def __call__(self, images: np.ndarray, size: int | None = None) -> np.ndarray:
        """Computes logits in batches of `size`, by default `self.size`."""
        logits, size = [], size or self.size
        for i in range(0, len(images), size):
            part = images[i : i + size]
            padded = np.concatenate([part, np.repeat(part[:1], size - len(part), 0)])
            key = jax.random.fold_in(self._key, self.calls)
            self.calls += 1
            with jax.default_matmul_precision("highest"):
                output = self._mapped(self._weights, key, padded)
            logits.append(np.asarray(output)[: len(part)])
        return np.concatenate(logits)
