"""The training data of a config: the data set, the usable extra examples and how batches are drawn."""

from collections.abc import Callable

import numpy as np

from rwp_jax.data import sources, stored, stream
from rwp_jax.data.order import Mixture, make_mixture
from rwp_jax.data.sources import Dataset
from rwp_jax.errors import InputError, named_in
from rwp_jax.training.objective import Objective
from rwp_jax.training.objectives import make_objective
from rwp_jax.training.train_step import TrainingSet


def objective_of(config) -> Objective:
    """Returns the config's objective; raises InputError if a setting is invalid."""
    with named_in("config.objective", " ".join(config.objective)):
        return make_objective(**config.objective.to_dict())


def load_data(config) -> Dataset:
    """Loads the data set, with the extra data of config.extra_data.path if it is set."""
    path = config.extra_data.path
    extra = stored.open_extra(path) if path else None  # first: the data set may be a long download
    if extra and isinstance(extra[0], stored.StoredImages):
        stream.check_available()
    data = sources.load(**config.data.to_dict())
    return sources.with_extra(data, path, *extra, config.extra_data.use_labels) if extra else data


def _usable_extra(config, dataset: Dataset) -> np.ndarray:
    """Returns the indices of the extra examples for which the objective has a loss."""
    if dataset.y_extra is None or not config.extra_data.unlabeled_fraction:
        return np.arange(0)
    return np.flatnonzero(objective_of(config).uses_unlabelled | (dataset.y_extra >= 0))


def check_labels(config, dataset: Dataset) -> None:
    """Raises InputError if CutMix would mix labels that extra examples lack."""
    # The first stage of self-training is yet to label them.
    if not config.augment.cutmix or config.self_training.epochs or dataset.y_extra is None:
        return
    labels = dataset.y_extra[_usable_extra(config, dataset)]
    if (labels < 0).any():
        raise InputError(
            f"config.augment.cutmix={config.augment.cutmix} mixes labels, which {(labels < 0).sum()} of "
            f"{len(labels)} extra images lack: label them, or set it to 0"
        )


def mixture_of(config, dataset: Dataset) -> Mixture:
    """Returns how the batches of an epoch are drawn from the data set."""
    return make_mixture(
        len(dataset.x_train),
        config.batch_size,
        len(_usable_extra(config, dataset)),
        config.extra_data.unlabeled_fraction,
        config.epoch_examples,
    )


def training_set(config, dataset: Dataset) -> TrainingSet:
    """Returns the training examples on the host, extra ones last, with weight config.extra_data.weight.

    If extra images are on disk, it has no images: `batch_reader` reads those of a batch.
    """
    usable = _usable_extra(config, dataset)
    counts = (len(dataset.y_train), len(usable))
    weights = np.repeat(np.array([1, config.extra_data.weight], np.float32), counts)
    if dataset.x_extra is None or dataset.y_extra is None or not len(usable):
        return TrainingSet(dataset.x_train, dataset.y_train, weights)
    labels = np.concatenate([dataset.y_train, dataset.y_extra[usable]])
    if isinstance(dataset.x_extra, stored.StoredImages):
        return TrainingSet(None, labels, weights)
    images = np.empty((len(weights), *dataset.x_train.shape[1:]), np.uint8)
    images[: counts[0]] = dataset.x_train
    # Into place, as millions of images fill gigabytes: x_extra[usable] would be another copy.
    np.take(dataset.x_extra, usable, axis=0, out=images[counts[0] :], mode="clip")
    return TrainingSet(images, labels, weights)


def is_streamed(config, dataset: Dataset) -> bool:
    """Returns whether the images of batches are read while training, as extra images are on disk."""
    return isinstance(dataset.x_extra, stored.StoredImages) and bool(
        len(_usable_extra(config, dataset))
    )


def batch_reader(config, dataset: Dataset) -> Callable[[np.ndarray], np.ndarray]:
    """Returns indices [n] of the training examples -> their images uint8 [n, H, W, C], read from disk."""
    usable, x_train = _usable_extra(config, dataset), dataset.x_train
    x_extra = dataset.x_extra
    assert isinstance(x_extra, stored.StoredImages)

    def read(indices: np.ndarray) -> np.ndarray:
        images = np.empty((len(indices), *x_train.shape[1:]), np.uint8)
        extra = np.flatnonzero(indices >= len(x_train))
        labelled = np.flatnonzero(indices < len(x_train))
        images[labelled] = x_train[indices[labelled]]
        x_extra.read_into(images, extra, usable[indices[extra] - len(x_train)])
        return images

    return read
