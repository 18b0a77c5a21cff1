"""Pseudo-labels: predictions of a trained network for images without labels."""

import pathlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from rwp_jax.data import readers
from rwp_jax.errors import InputError
from rwp_jax.files import check_free, write_npz
from rwp_jax.runs.finished_run import FinishedRun
from rwp_jax.runs.loaded import load_run


def predict(run: FinishedRun, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels int32 [N] and confidences float32 [N] (the largest softmax) for images uint8 [N, H, W, C]."""
    logits = run.predict(images)
    confidences = jax.device_get(jnp.max(jax.nn.softmax(logits), -1))
    return np.argmax(logits, -1).astype(np.int32), confidences.astype(np.float32)


def write(path: pathlib.Path, images, labels, confidences) -> None:
    """Writes the npz that `readers.read_extra` reads, with the confidences."""
    arrays = {readers.IMAGES: images, readers.LABELS: labels, readers.CONFIDENCES: confidences}
    write_npz(path, arrays, compressed=True)


def pseudo_label(
    workdir: pathlib.Path,
    unlabeled: str,
    output: pathlib.Path,
    which: str,
    paths: Mapping[str, str] | None = None,
) -> None:
    """Labels images with the network of a run: the first stage of RST.

    Args:
      workdir: directory of the run.
      unlabeled: npz with `data` uint8 [N, H, W, C]; empty for the training images whose labels the
        run's config.data.labeled_examples left out.
      output: npz to write, for config.extra_data.path.
      which: checkpoint, such as `best` or `last`.
      paths: see `load_run`.

    Raises:
      InputError: if there is no such run or no image to label, or if `output` exists.
    """
    check_free("output", output)
    images = readers.read_images(unlabeled) if unlabeled else None
    run = load_run(workdir, which, paths)
    if images is None:
        images = run.data.x_extra
    if images is None:
        raise InputError(f"unlabeled= is missing, and {workdir} was trained on all of its labels")
    channels = run.image_shape[2]
    if images.shape[-1] != channels:
        raise InputError(
            f"unlabeled={unlabeled}: images are {images.shape}, must have {channels} channels"
        )
    labels, confidences = predict(run, images)
    write(output, images, labels, confidences)
    counts = np.bincount(labels, minlength=run.num_classes)
    print(
        f"labelled {len(labels)} images by {workdir} after epoch {run.epoch + 1}: mean confidence "
        f"{confidences.mean():.3f}, {counts.min()} to {counts.max()} images a class; wrote {output}"
    )
