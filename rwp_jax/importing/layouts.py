"""Layouts of weights in PyTorch and in JAX."""

import numpy as np

Arrays = dict[str, np.ndarray]
# Axes of numpy.transpose from PyTorch's layout to JAX's, by rank: linear layers from [out, in] to
# [in, out], convolutions from [out, in, *window] to [*window, in, out].
FROM_TORCH = {2: (1, 0), 3: (2, 1, 0), 4: (2, 3, 1, 0), 5: (2, 3, 4, 1, 0)}
