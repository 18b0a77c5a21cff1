"""Digests of what networks compute, which distinguish networks whose arrays have the same shapes."""

from typing import NamedTuple

import flax
import jax
import jax.numpy as jnp

from rwp_jax.models.classifier import Classifier
from rwp_jax.models.traced import program_digest


class Fingerprint(NamedTuple):
    """Digest of a network's evaluation forward, traced by these versions; others may trace it differently.

    Attributes:
      sha256: see `program_digest`.
      jax: version of JAX.
      flax: version of Flax.
    """

    sha256: str
    jax: str
    flax: str

    def differs(self, other: "Fingerprint") -> bool:
        """Returns whether the networks differ; False if the versions do, which makes it unknown."""
        return self != other and self[1:] == other[1:]


def fingerprint(classifier: Classifier, image_shape: tuple[int, int, int]) -> Fingerprint:
    """Traces the network on two images, compiling nothing."""
    images = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
    # The precision set for the process is not part of the network.
    with jax.default_matmul_precision(None):
        variables = classifier.shapes(tuple(image_shape))
        program = jax.make_jaxpr(classifier.eval)(*variables, images)
    return Fingerprint(program_digest(program), jax.__version__, flax.__version__)
