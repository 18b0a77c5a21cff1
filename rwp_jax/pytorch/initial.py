"""Reads the weights that a run begins with from another run, the zoo or a PyTorch checkpoint."""

import pathlib

import jax
import numpy as np

from rwp_jax.errors import InputError, check_path, prefixed
from rwp_jax.models.classifier import make_classifier
from rwp_jax.pytorch import contents, torch_files
from rwp_jax.pytorch.state_dict import check_has_names, from_state_dict
from rwp_jax.runs import zoo
from rwp_jax.runs.initial_weights import InitialWeights, weights_of_run
from rwp_jax.training import experiment
from rwp_jax.training.config_checks import check_keys
from rwp_jax.training.recipe import param_dtype


def initial_weights(
    config, source: pathlib.Path | str, checkpoint: str | None = None, torch_key: str = ""
) -> InitialWeights:
    """Reads weights and batch statistics for `train(..., init_from=...)`.

    Args:
      config: ConfigDict of the run that is to begin with them.
      source: directory of a run; `zoo:NAME`; or a PyTorch state dict in a file of torch.save, safetensors
        or npz.
      checkpoint: checkpoint of the run, as for `load_run`; None for `last`.
      torch_key: key of the state dict in the file, if it holds several.

    Raises:
      InputError: if there is no such source, or it does not fit the config's network.
    """
    check_keys(config)
    experiment.check_values(config)
    path = check_path("init_from", source)
    if str(source).startswith(zoo.PREFIX) or path.is_dir():
        if torch_key:
            raise InputError(
                f"torch_key={torch_key} is for a file, but init_from={source} is a run"
            )
        return weights_of_run(source if str(source).startswith(zoo.PREFIX) else path, checkpoint)
    if checkpoint:
        raise InputError(f"checkpoint={checkpoint} is for a run, but init_from={source} is none")
    if not path.is_file():
        raise InputError(
            f"init_from={source} is not there: it must be a run's directory, a file of a PyTorch "
            f"checkpoint or {zoo.PREFIX}NAME"
        )
    return _from_file(config, path, torch_key)


def _from_file(config, path: pathlib.Path, key: str) -> InitialWeights:
    name = config.model.name
    check_has_names(name)
    with prefixed("init_from="):
        entries, nested = torch_files.read_state_dict(path, key)
        with prefixed(f"{path} "):
            parts = contents.split(entries, nested)
        num_classes = contents.num_classes_of(parts)
        classifier = make_classifier(name, num_classes, dtype=param_dtype(config))
        shape = 32, 32, _channels(parts.network)  # any size: the last pooling is over all positions
        trees = jax.eval_shape(lambda: classifier.init(jax.random.key(0), shape))
        templates = dict(zip(("params", "batch_stats"), trees, strict=True))
        contents.check_fit(path, parts, name, templates)
    params, batch_stats = (
        from_state_dict(name, tree, lambda entry, _: parts.network[entry], collection)
        for collection, tree in templates.items()
    )
    known = bool(parts.mean and parts.std)
    moments = (parts.mean, parts.std) if known else (None, None)
    return InitialWeights(params, batch_stats, num_classes, str(path), "", *moments)


def _channels(network: dict[str, np.ndarray]) -> int:
    """Returns the channels of the images that a network takes; 3 if `check_fit` will refuse it."""
    stem = network.get("conv1.weight", np.empty((0, 3, 0, 0)))
    return stem.shape[1] if stem.ndim == 4 else 3
