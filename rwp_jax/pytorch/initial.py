"""Reads the weights that a run begins with from another run, the zoo or a PyTorch checkpoint."""

import pathlib

from rwp_jax.errors import InputError, check_path, prefixed
from rwp_jax.models.classifier import make_classifier
from rwp_jax.pytorch import contents, torch_files
from rwp_jax.pytorch.state_dict import check_has_names
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
        channels = contents.channels_of(parts.network) or 3
        # Any image size works: the last pooling is over all positions.
        params, batch_stats = classifier.shapes((32, 32, channels))
        templates = {"params": params, "batch_stats": batch_stats}
        trees = contents.fitted(path, parts, name, templates)
    mean, std = (parts.mean, parts.std) if parts.mean and parts.std else (None, None)
    network = trees["params"], trees["batch_stats"], num_classes
    return InitialWeights(*network, str(path), mean=mean, std=std)
