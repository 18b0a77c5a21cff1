"""The gradient of a loop over several devices: summed and carried in the form that suits the platform.

XLA for GPUs sums a tree of arrays in one buffer, and copies each array into the buffer and back by a kernel
of its own. On eight H100s these copies were a quarter of the kernels of a weight-ascent step of
PreActResNet-18. There, the loop sums and carries one vector of all elements.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree

from rwp_jax.models.moments import over_several


class Sum(NamedTuple):
    """A gradient as the loop carries it.

    On several GPUs, `vector` is in use, elsewhere `tree`. The other stays zero, and XLA removes it.

    Attributes:
      tree: tree like the parameters.
      vector: all elements of the tree; empty for a single device.
    """

    tree: Any
    vector: jax.Array


def _by_platform(*operands, as_vector, as_tree):
    return lax.platform_dependent(*operands, cuda=as_vector, rocm=as_vector, default=as_tree)


class GradientSum:
    """Sums gradients over the devices of a mapped axis, within a loop.

    Args:
      params: tree of parameters.
      axis_name: mapped axis, or None for a single device.
      dtype: dtype in which devices exchange gradients; "" for the gradients' own, or for the one that holds
        them all where they are exchanged as a vector.
    """

    def __init__(self, params, axis_name: str | None, dtype: str = ""):
        self._axis_name, self._dtype = axis_name, dtype
        self._several = over_several(axis_name)
        zeros = jax.tree.map(jnp.zeros_like, params)
        vector, self._separate = ravel_pytree(self._output_channels_first(zeros))
        self.zeros = Sum(zeros, vector if self._several else vector[:0])

    @staticmethod
    def _output_channels_first(tree):
        # As in gradients from cuDNN, which need no transposition then.
        return jax.tree.map(lambda array: jnp.moveaxis(array, -1, 0) if array.ndim else array, tree)

    def _total(self, arrays):
        exchanged = jax.tree.map(lambda array: array.astype(self._dtype or array.dtype), arrays)
        sums = lax.psum(exchanged, self._axis_name)
        return jax.tree.map(lambda sum_, array: sum_.astype(array.dtype), sums, arrays)

    def add_devices(self, gradient, previous: Sum) -> Sum:
        """Returns the sum of the devices' gradients, in place of the previous one."""
        if not self._several:
            return previous._replace(tree=gradient)

        def as_vector(gradient, previous):
            vector, _ = ravel_pytree(self._output_channels_first(gradient))
            return previous._replace(vector=self._total(vector))

        def as_tree(gradient, previous):
            return previous._replace(tree=self._total(gradient))

        return _by_platform(gradient, previous, as_vector=as_vector, as_tree=as_tree)

    def tree(self, total: Sum):
        """Returns the summed gradient as a tree like the parameters."""
        if not self._several:
            return total.tree

        def from_vector(total):
            first = self._separate(total.vector)
            return jax.tree.map(
                lambda array: jnp.moveaxis(array, 0, -1) if array.ndim else array, first
            )

        return _by_platform(total, as_vector=from_vector, as_tree=lambda total: total.tree)
