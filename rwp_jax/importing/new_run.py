"""Makes a run of imported weights, which can be evaluated, reported on and continued."""

import json
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from rwp_jax.data import sources
from rwp_jax.data.sources import Dataset
from rwp_jax.distributed import devices
from rwp_jax.errors import InputError, check_path
from rwp_jax.files import write_json
from rwp_jax.models.classifier import MODELS
from rwp_jax.runs import identity, layout
from rwp_jax.runs.checkpoint import Checkpoints
from rwp_jax.runs.network_record import NetworkRecord, write_network_record
from rwp_jax.training import experiment, training_data
from rwp_jax.training.train_step import TrainState, init_state
from rwp_jax.training.weight_averaging import Average


class NewRun(NamedTuple):
    """A run to be made, whose inputs are checked.

    Attributes:
      config: its config.
      directory: its directory, empty or missing.
      epoch: number of epochs that the network was trained for, at least 1.
      network: classes and image shape.
      steps: steps per epoch; 1 if no epochs remain.
      like: its state, as ShapeDtypeStructs.
      data: its data; None if they have not been read.
    """

    config: ml_collections.ConfigDict
    directory: pathlib.Path
    epoch: int
    network: NetworkRecord
    steps: int
    like: TrainState
    data: Dataset | None

    @property
    def templates(self) -> dict[str, Any]:
        """The network's `params` and `batch_stats`, as ShapeDtypeStructs."""
        return {"params": self.like.params, "batch_stats": self.like.batch_stats}


def plan(
    config,
    directory: pathlib.Path,
    source: str,
    epoch: int,
    sizes: tuple[int, int],
) -> NewRun:
    """Checks all inputs but the weights.

    Args:
      config: config of the run.
      directory: directory of the run.
      source: argument and path of the weights, for messages: `path=weights.npz`.
      epoch: number of epochs that the network was trained for; 0 for all of the config's epochs.
      sizes: channels and classes of the weights; not used for a registered network, whose data tell.

    Raises:
      InputError: for bad input.
    """
    experiment.check_values(config)
    if not 0 <= epoch <= config.epochs:
        raise InputError(
            f"epoch={epoch} must be in [1, config.epochs={config.epochs}], or 0 for the last"
        )
    if layout.check(directory, json.loads(config.to_json()), resume=True):
        raise InputError(f"workdir={directory} already holds a run: choose an empty directory")
    epoch = epoch or config.epochs
    data = None
    # The number of steps, which depends on the data, matters only if epochs remain.
    if epoch < config.epochs:
        experiment.check_config(config)
        data = training_data.load_data(config)
        experiment.check_sizes(config, data)
    elif MODELS.origin(config.model.name):
        data = sources.load(**config.data.to_dict())
    if data is not None and MODELS.origin(config.model.name):
        network = experiment.network_record(config, data)
    else:
        if data is not None:
            _check_sizes(config, source, sizes, data)
        network = NetworkRecord((0, 0, sizes[0]), sizes[1])
    steps = training_data.mixture_of(config, data).steps if data is not None else 1
    recipe = experiment.build(config, network.num_classes, steps).recipe
    # Any image size works for the package's networks: the last pooling is over all positions.
    height, width, channels = network.image_shape
    shape = height or 32, width or 32, channels
    like = jax.eval_shape(lambda key: init_state(recipe, key, shape), jax.random.key(0))
    return NewRun(config, directory, epoch, network, steps, like, data)


def check_data(run: NewRun, source: str) -> None:
    """Raises InputError unless the network fits the config's data, as far as these are known.

    The sizes of a named data set are known; a file is read only if it is there. `source` as in `plan`.
    """
    if run.data is not None:
        return
    sizes = run.network.image_shape[2], run.network.num_classes
    if run.config.data.name in sources.NAMED:
        _check_sizes(run.config, source, sizes, None)
        return
    path = run.config.data.path and check_path("config.data.path", run.config.data.path)
    if path and path.is_file():
        data = sources.load(**run.config.data.to_dict())
        _check_sizes(run.config, source, sizes, data)


def _check_sizes(config, source: str, sizes: tuple[int, int], data: Dataset | None) -> None:
    if data is None:
        named = sources.NAMED[config.data.name]
        channels, classes = named.image_shape[-1], named.num_classes
    else:
        channels, classes = data.x_train.shape[-1], data.num_classes
    if sizes != (channels, classes):
        raise InputError(
            f"{source} is for images of {sizes[0]} channels and {sizes[1]} classes, the data "
            f"have {channels} and {classes} (config.data.name={config.data.name!r})"
        )


def write(run: NewRun, params, batch_stats, trace=None) -> None:
    """Writes the directory of the run except for its config, which `finish` writes.

    Args:
      run: run from `plan`.
      params: parameters, with the structure, shapes and dtypes of `run.like.params`.
      batch_stats: running statistics, likewise.
      trace: momentum, likewise; None for zeros.
    """
    step = run.epoch * run.steps
    zeros = lambda leaf: jnp.zeros(leaf.shape, leaf.dtype)
    opt_state = jax.tree.map(zeros, run.like.opt_state)
    opt_state = optax.tree.set(opt_state, count=jnp.int32(step))
    if trace is not None:
        opt_state = optax.tree.set(opt_state, trace=trace)
    ema = jax.tree.map(np.copy, Average(params, batch_stats)) if run.config.ema_decay else None
    state = TrainState(jnp.int32(step), params, batch_stats, opt_state, ema)
    run.directory.mkdir(parents=True, exist_ok=True)
    checkpoints = Checkpoints(run.directory)
    record = {"step": step, "epoch": run.epoch - 1, "seconds": 0.0, "metrics": []}
    plain = json.loads(run.config.to_json())
    checkpoints.save(devices.replicate(state), record | identity.marks(plain, run.data))
    checkpoints.close()
    write_network_record(run.directory, run.network)


def finish(run: NewRun) -> None:
    """Writes the config, last: if an import is killed before, the directory does not count as a run."""
    write_json(run.directory / layout.CONFIG, json.loads(run.config.to_json()))
