"""Imports a PyTorch checkpoint as a run that can be evaluated, reported on and continued."""

import json
import pathlib

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from rwp_jax.data import sources
from rwp_jax.data.sources import Dataset
from rwp_jax.distributed import devices
from rwp_jax.errors import InputError, check_path, prefixed
from rwp_jax.files import write_json
from rwp_jax.pytorch import contents, torch_files
from rwp_jax.pytorch.contents import CheckpointParts
from rwp_jax.pytorch.state_dict import check_has_names, from_state_dict
from rwp_jax.runs import identity, layout
from rwp_jax.runs.checkpoint import Checkpoints
from rwp_jax.runs.network_record import NetworkRecord, write_network_record
from rwp_jax.training import experiment, training_data
from rwp_jax.training.train_step import TrainState, init_state
from rwp_jax.training.weight_averaging import Average


def _template(config, num_classes: int, channels: int, steps_per_epoch: int) -> TrainState:
    """Returns the state of a run with this config, as ShapeDtypeStructs."""
    recipe = experiment.build(config, num_classes, steps_per_epoch).recipe
    image_shape = (32, 32, channels)  # any size works: the last pooling is over all positions
    return jax.eval_shape(lambda key: init_state(recipe, key, image_shape), jax.random.key(0))


def _with_normalization(config, parts: CheckpointParts, path: pathlib.Path):
    """Returns the config with the normalisation of the checkpoint, if it has one."""
    if bool(parts.mean) != bool(parts.std):
        raise InputError(
            f"{path} has only one of the mean and the standard deviation of pixels, must have both or none"
        )
    if not parts.mean:
        return config
    if not (np.isfinite([*parts.mean, *parts.std]).all() and min(parts.std) > 0):
        raise InputError(
            f"{path} normalises pixels by mean {parts.mean}, which must be finite, and standard deviation "
            f"{parts.std}, which must be finite and positive"
        )
    config = ml_collections.ConfigDict(config.to_dict())
    config.model.mean, config.model.std = parts.mean, parts.std
    return config


def _momentum(
    path: pathlib.Path, checkpoint: pathlib.Path, parts: CheckpointParts, model_name: str, params
):
    """Reads SGD's momentum for `params` (ShapeDtypeStructs) from the file of the checkpoint's optimiser."""
    with prefixed("torch_optimizer="):
        buffers = torch_files.momenta(path, torch_files.read_optimizer(path))
    own = lambda name: name.removeprefix(parts.prefix)
    names = contents.parameter_names(parts.order, parts.copies)
    if torch_files.is_safetensors(checkpoint):  # its entries are in alphabetical order
        names = sorted(names, key=lambda name: contents.registration_order(own(name)))
    if len(buffers) != len(names):
        raise InputError(
            f"{path} has momentum for {len(buffers)} parameters, the checkpoint has {len(names)}"
        )
    by_name = {own(name): b for name, b in zip(names, buffers, strict=True)}

    def entry(name, shape):
        value = by_name[name]
        if value is None:  # a parameter that was never updated
            return np.zeros(shape)
        if value.shape != shape:
            raise InputError(
                f"{path}: the momentum of {name} is {list(value.shape)}, must be {list(shape)}"
            )
        dtype = jax.tree.leaves(params)[0].dtype
        contents.check_finite(path, f"the momentum of {name}", value, dtype)
        return value

    return from_state_dict(model_name, params, entry)


def _data(config, checkpoint: pathlib.Path, channels: int, num_classes: int) -> Dataset:
    """Loads the data to continue training with; raises InputError if the network does not fit them."""
    experiment.check_config(config)
    data = training_data.load_data(config)
    experiment.check_sizes(config, data)
    _check_data(config, checkpoint, (channels, num_classes), data)
    return data


def _check_data(
    config, checkpoint: pathlib.Path, sizes: tuple[int, int], data: Dataset | None = None
) -> None:
    """Raises InputError unless the network's channels and classes fit the config's data.

    Without `data`, those of a named data set are known; a file is read only if it is there.
    """
    if data is None and config.data.name in sources.NAMED:
        named = sources.NAMED[config.data.name]
        channels, classes = named.image_shape[-1], named.num_classes
    else:
        if data is None:
            path = config.data.path and check_path("config.data.path", config.data.path)
            if not path or not path.is_file():
                return
            data = sources.load(**config.data.to_dict())
        channels, classes = data.x_train.shape[-1], data.num_classes
    if sizes != (channels, classes):
        raise InputError(
            f"{checkpoint} is for images of {sizes[0]} channels and {sizes[1]} classes, the data "
            f"have {channels} and {classes} (config.data.name={config.data.name!r})"
        )


def import_torch(
    config,
    directory: pathlib.Path,
    checkpoint: pathlib.Path,
    optimizer: pathlib.Path | None = None,
    epoch: int = 0,
    key: str = "",
) -> None:
    """Creates a run from a PyTorch checkpoint.

    Args:
      config: config of the run; a normalisation inside the checkpoint overrides that of the config.
      directory: directory of the run, empty or missing.
      checkpoint: state dict, see `torch_files.read_state_dict`.
      optimizer: state dict of its torch.optim.SGD; None for zero momentum.
      epoch: number of epochs that the network was trained for; 0 for all of the config's epochs.
      key: key of the state dict in the file, see `torch_files.read_state_dict`.

    Raises:
      InputError: for bad input, before anything is written.
    """
    with prefixed("torch_checkpoint="):
        entries, nested = torch_files.read_state_dict(checkpoint, key)
        with prefixed(f"{checkpoint} "):
            parts = contents.split(entries, nested)
    config = _with_normalization(config, parts, checkpoint)
    experiment.check_values(config)
    check_has_names(config.model.name)
    if not 0 <= epoch <= config.epochs:
        raise InputError(
            f"epoch={epoch} must be in [1, config.epochs={config.epochs}], or 0 for the last"
        )
    epoch = epoch or config.epochs
    plain_config = json.loads(config.to_json())
    if layout.check(directory, plain_config, resume=True):
        raise InputError(f"workdir={directory} already holds a run: choose an empty directory")

    name, num_classes = config.model.name, contents.num_classes_of(parts)
    channels = contents.channels_of(parts.network) or 3
    # The number of steps, which depends on the data, matters only if epochs remain.
    data = _data(config, checkpoint, channels, num_classes) if epoch < config.epochs else None
    steps = training_data.mixture_of(config, data).steps if data else 1
    like = _template(config, num_classes, channels, steps)
    collections = {"params": like.params, "batch_stats": like.batch_stats}
    contents.check_fit(checkpoint, parts, name, collections)
    if data is None:
        _check_data(config, checkpoint, (channels, num_classes))

    params, batch_stats = (
        from_state_dict(name, tree, lambda entry, _: parts.network[entry], collection)
        for collection, tree in collections.items()
    )
    zeros = lambda leaf: jnp.zeros(leaf.shape, leaf.dtype)
    opt_state = jax.tree.map(zeros, like.opt_state)
    opt_state = optax.tree.set(opt_state, count=jnp.int32(epoch * steps))
    momentum = "zero"
    if optimizer and not config.optimizer.momentum:
        raise InputError("torch_optimizer= holds momentum, but config.optimizer.momentum=0")
    if optimizer:
        trace = _momentum(optimizer, checkpoint, parts, name, like.params)
        moved = any(buffer.any() for buffer in jax.tree.leaves(trace))
        momentum = f"as in {optimizer}" if moved else f"zero, as {optimizer} has none"
        opt_state = optax.tree.set(opt_state, trace=trace)
    ema = jax.tree.map(np.copy, Average(params, batch_stats)) if config.ema_decay else None
    state = TrainState(jnp.int32(epoch * steps), params, batch_stats, opt_state, ema)

    directory.mkdir(parents=True, exist_ok=True)
    checkpoints = Checkpoints(directory)
    record = {"step": epoch * steps, "epoch": epoch - 1, "seconds": 0.0, "metrics": []}
    checkpoints.save(devices.replicate(state), record | identity.marks(plain_config, data))
    checkpoints.close()
    # The config comes last: if the import is killed before, the directory does not count as a run.
    contents.save_aside(directory, parts)
    write_network_record(directory, NetworkRecord((0, 0, channels), num_classes))
    write_json(directory / layout.CONFIG, plain_config)
    mean, std = (
        ", ".join(f"{value:.6g}" for value in values) for values in (parts.mean, parts.std)
    )
    normalization = f", pixels normalised by mean {mean} and deviation {std}" if mean else ""
    print(
        f"imported {checkpoint} as {name} of {num_classes} classes after epoch {epoch} of "
        f"{config.epochs}{normalization}; momentum {momentum}; "
        f"{len(parts.aside)} entries kept aside; wrote {directory}"
    )
