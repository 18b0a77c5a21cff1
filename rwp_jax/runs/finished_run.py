"""A trained network with everything needed to use it."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from rwp_jax.attacks.arguments import ROUNDING
from rwp_jax.data import sources
from rwp_jax.data.order import padded_batches
from rwp_jax.distributed import devices
from rwp_jax.errors import InputError
from rwp_jax.models.classifier import Classifier
from rwp_jax.runs import identity
from rwp_jax.runs.history import History

_PREDICTED_PER_DEVICE = 256


@dataclasses.dataclass(frozen=True, repr=False)
class FinishedRun:
    """A trained network.

    Attributes:
      config: config of the run, at this epoch if it changed during the run.
      epoch: epoch after which the checkpoint was saved, counted from 0.
      classifier: the network's functions.
      params: its parameters, on all devices of this host.
      batch_stats: its batch statistics (running averages), on all devices of this host.
      image_shape: (H, W, C) of its input images; H and W are 0 if unknown.
      num_classes: number of classes.
      saved: content of the checkpoint, nested dicts of NumPy arrays: the training state of a run, or only
        the network for the zoo.
      code: digest of the computation of a user-defined network; empty for the package's networks.
      source: where it was loaded from, for messages.
      history: changes of the config during the run, and what its weights began from.
      data_digests: digests of the data set's arrays; empty if the checkpoint has none.
      test_images: test images of the run's data set, uint8 [N, H, W, C], read on first access.
      test_labels: their labels, int32 [N].
    """

    config: ml_collections.ConfigDict
    epoch: int
    classifier: Classifier
    params: Any
    batch_stats: Any
    image_shape: tuple[int, int, int]
    num_classes: int
    saved: dict[str, Any]
    code: str = ""
    source: str = ""
    history: History = History()
    data_digests: dict[str, str] = dataclasses.field(default_factory=dict)

    def __repr__(self) -> str:
        """Returns one line without the weights, in which epochs count from 1."""
        return (
            f"FinishedRun({self.architecture()!r}, {self.num_classes} classes, images {self.sizes()}, "
            f"epoch {self.epoch + 1})"
        )

    def architecture(self) -> str:
        """Returns the network's name, with the activation if that is not the network's own."""
        model = self.config.model
        return f"{model.name} ({model.activation})" if model.activation else model.name

    def predict(self, images) -> np.ndarray:
        """Computes logits with the stored batch statistics, at the highest precision of the device.

        Args:
          images: uint8 [N, H, W, C], or floating-point in [0, 1].

        Returns:
          [N, num_classes], float32 (float64 for a run in float64).

        Raises:
          InputError: if the images have another dtype or shape, or pixels out of range.
        """
        images = self._checked(images)
        batch_size = _PREDICTED_PER_DEVICE * jax.local_device_count()
        logits = [np.zeros((0, self.num_classes), jax.tree.leaves(self.params)[0].dtype)]
        with jax.default_matmul_precision("highest"):
            for indices, mask in padded_batches(len(images), batch_size):
                batch = self._logits(self.params, self.batch_stats, images[indices])
                logits.append(np.asarray(batch)[mask])
        return np.concatenate(logits)

    def takes(self, image_shape: tuple[int, ...]) -> bool:
        """Checks whether the network takes images of this shape, (H, W, C)."""
        known = self.image_shape
        fits = len(image_shape) == 3 and image_shape[2] == known[2]
        return fits and known[:2] in ((0, 0), tuple(image_shape[:2]))

    def sizes(self) -> str:
        """Returns the shape of the network's input images as text, such as 32x32x3."""
        return "x".join(str(size or "?") for size in self.image_shape)

    def _checked(self, images) -> np.ndarray:
        """Returns the images as an array; raises InputError if the network cannot take them."""
        if isinstance(images, jax.core.Tracer):
            raise InputError(
                "images= are traced: predict runs outside of jax.jit and jax.vmap; within them and in "
                "attacks, use run.classifier.eval(run.params, run.batch_stats, images)"
            )
        try:
            images = np.asarray(images)
        except ValueError:
            raise InputError("images= must be an array: their lists have unequal lengths") from None
        floating = jnp.issubdtype(images.dtype, jnp.floating)  # NumPy's test rejects bfloat16
        if not floating and images.dtype != np.uint8:
            raise InputError(
                f"images= are {images.dtype}, must be uint8, or floating-point in [0, 1]"
            )
        if not self.takes(images.shape[1:]):
            sizes = [str(size or name) for name, size in zip("HWC", self.image_shape, strict=True)]
            raise InputError(f"images= have shape {images.shape}, must be [N, {', '.join(sizes)}]")
        if floating and np.isnan(images).any():
            raise InputError("images= must have pixels in [0, 1], some are NaN")
        if floating and not ((images >= -ROUNDING) & (images <= 1 + ROUNDING)).all():
            raise InputError("images= have pixels outside [0, 1]: give uint8, or divide by 255")
        return images.clip(0, 1) if floating else images

    @functools.cached_property
    def _logits(self) -> devices.Mapped:
        def logits(params, batch_stats, x):
            dtype = jax.tree.leaves(params)[0].dtype
            scale = 255 if x.dtype == jnp.uint8 else 1
            return self.classifier.eval(params, batch_stats, x.astype(dtype) / scale)

        return devices.over_examples(logits, (False, False, True))

    @functools.cached_property
    def data(self) -> sources.Dataset:
        """The run's data set, without the images of `config.extra_data.path`; read at first use.

        Raises:
          InputError: if it cannot be read, or differs from the one that the run was trained with. If its
            files have moved, set `config.data.path` or `config.data.data_dir` before.
        """
        try:
            data = sources.load(**self.config.data.to_dict())
        except InputError as error:
            if "is not a file" not in str(error) and "reading it from" not in str(error):
                raise
            raise InputError(
                f"{error}; if the data have moved, give config.data.path or config.data.data_dir"
            ) from None
        self.check_data(data)
        return data

    def check_data(self, data: sources.Dataset) -> None:
        """Raises InputError if a data set differs from the one that the network was trained with."""
        identity.check_data(self.source or repr(self), self.data_digests, data)

    @property
    def test_images(self) -> np.ndarray:
        return self.data.x_test

    @property
    def test_labels(self) -> np.ndarray:
        return self.data.y_test
