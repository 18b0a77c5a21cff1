"""Imports a PyTorch checkpoint as a run that can be evaluated, reported on and continued."""

import pathlib

import jax
import ml_collections
import numpy as np

from rwp_jax.errors import InputError, prefixed
from rwp_jax.importing import array_files, name_map, new_run
from rwp_jax.importing.import_ import import_arrays, import_jax
from rwp_jax.importing.networks import check_finite
from rwp_jax.pytorch import contents, torch_files
from rwp_jax.pytorch.contents import CheckpointParts
from rwp_jax.pytorch.state_dict import check_has_names, from_state_dict


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
        check_finite(path, f"the momentum of {name}", value, dtype)
        return value

    return from_state_dict(model_name, params, entry)


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
    check_has_names(config.model.name)
    name, num_classes = config.model.name, contents.num_classes_of(parts)
    channels = contents.channels_of(parts.network) or 3
    source = f"torch_checkpoint={checkpoint}"
    run = new_run.plan(config, directory, source, epoch, (channels, num_classes))
    with prefixed("torch_checkpoint="):
        trees = contents.fitted(checkpoint, parts, name, run.templates)
    new_run.check_data(run, source)
    momentum, trace = "zero", None
    if optimizer and not config.optimizer.momentum:
        raise InputError("torch_optimizer= holds momentum, but config.optimizer.momentum=0")
    if optimizer:
        trace = _momentum(optimizer, checkpoint, parts, name, run.like.params)
        moved = any(buffer.any() for buffer in jax.tree.leaves(trace))
        momentum = f"as in {optimizer}" if moved else f"zero, as {optimizer} has none"
    new_run.write(run, **trees, trace=trace)
    contents.save_aside(directory, parts)
    new_run.finish(run)
    mean, std = (
        ", ".join(f"{value:.6g}" for value in values) for values in (parts.mean, parts.std)
    )
    normalization = f", pixels normalised by mean {mean} and deviation {std}" if mean else ""
    print(
        f"imported {checkpoint} as {name} of {num_classes} classes after epoch {run.epoch} of "
        f"{config.epochs}{normalization}; momentum {momentum}; "
        f"{len(parts.aside)} entries kept aside; wrote {directory}"
    )


def is_of_jax(path: pathlib.Path) -> bool:
    """Returns whether a file or directory comes from a program in JAX, by its kind or the names in it."""
    kind = array_files.kind_of(path)
    if kind in ("npz", "safetensors"):  # both write them
        read = array_files.read_npz if kind == "npz" else array_files.read_safetensors
        leaves = {name.rpartition(".")[2] for name in read(path)}
        return not leaves & {"weight", "running_mean"}
    return bool(kind) or path.is_dir()


def import_network(
    config,
    directory: pathlib.Path,
    path: pathlib.Path,
    optimizer: pathlib.Path | None = None,
    epoch: int = 0,
    key: str = "",
    names: pathlib.Path | None = None,
) -> None:
    """Creates a run from a checkpoint of PyTorch, see `import_torch`, or of JAX, see `import_jax`.

    Args:
      config: config of the run.
      directory: directory of the run, empty or missing.
      path: file or directory of the checkpoint.
      optimizer: state dict of a torch.optim.SGD, for a checkpoint of PyTorch; None for zero momentum.
      epoch: number of epochs that the network was trained for; 0 for all of the config's epochs.
      key: key of the network in the file.
      names: JSON file that maps the names in the file to ours, see `name_map`; None if they are known.

    Raises:
      InputError: for bad input, before anything is written.
    """
    if not path.exists():
        raise InputError(f"path={path} is not a file or directory")
    with prefixed("path="):
        jax_file = is_of_jax(path)
    if optimizer and (jax_file or names):
        raise InputError(
            f"torch_optimizer={optimizer} is for PyTorch checkpoints with the names of this family"
        )
    if jax_file:
        import_jax(config, directory, path, array_files.kind_of(path), names, epoch, key)
    elif names:
        mapped = name_map.read_name_map(names)
        with prefixed("path="):
            entries, _ = torch_files.read_state_dict(path, key)
        import_arrays(config, directory, path, entries, mapped, epoch)
    else:
        import_torch(config, directory, path, optimizer, epoch, key)
