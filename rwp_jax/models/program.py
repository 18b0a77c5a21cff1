"""What a network computes, as a digest that tells one from another whose arrays have the same shapes."""

import hashlib
import re
from typing import NamedTuple

import flax
import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr

from rwp_jax.files import raw_bytes
from rwp_jax.models.classifier import Classifier


def digest(program: ClosedJaxpr) -> str:
    """SHA-256 of the operations and of the arrays that they close over."""
    content = hashlib.sha256(re.sub(r"0x[0-9a-f]+", "", str(program.jaxpr)).encode())
    for value in program.consts:
        content.update(raw_bytes(value))
    return content.hexdigest()


class Program(NamedTuple):
    """A network's forward in evaluation, traced by these versions; others may trace another for it.

    Attributes:
      sha256: see `digest`.
      jax: version of JAX.
      flax: version of Flax.
    """

    sha256: str
    jax: str
    flax: str

    def differs(self, other: "Program") -> bool:
        """Whether the two are of different networks, as far as versions allow to say."""
        return self != other and self[1:] == other[1:]


def program_of(classifier: Classifier, image_shape: tuple[int, int, int]) -> Program:
    """Traces the network on two images, compiling nothing."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    variables = jax.eval_shape(lambda key: classifier.init(key, tuple(image_shape)), key)
    images = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
    program = jax.make_jaxpr(classifier.eval)(*variables, images)
    return Program(digest(program), jax.__version__, flax.__version__)
