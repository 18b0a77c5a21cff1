"""Weights that a run begins with instead of drawn ones: those of another run, of the zoo or of a file."""

import hashlib
import json
import pathlib
from typing import Any, NamedTuple

from rwp_jax.errors import InputError, check_path, renamed
from rwp_jax.files import array_digests
from rwp_jax.runs import zoo
from rwp_jax.runs.loaded import config_of, read_checkpoint
from rwp_jax.runs.network_record import read_network_record, record_of_params
from rwp_jax.runs.resume_point import WHICH
from rwp_jax.version import described


class InitialWeights(NamedTuple):
    """Weights and batch statistics of a trained network, from `initial_weights`.

    Attributes:
      params: parameters, nested dicts of NumPy arrays.
      batch_stats: batch statistics, likewise.
      num_classes: number of classes of the network.
      source: run, network of the zoo or file that they come from.
      checkpoint: checkpoint of the run; "" for a file.
      mean: mean by which the network normalises pixels, one number per channel; None if unknown.
      std: standard deviation by which it normalises them, likewise.
      activation: `config.model.activation` of the run; None if unknown.
    """

    params: Any
    batch_stats: Any
    num_classes: int
    source: str
    checkpoint: str = ""
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    activation: str | None = None

    def digest(self) -> str:
        """Returns the digest of all arrays."""
        digests = array_digests({"params": self.params, "batch_stats": self.batch_stats})
        return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()

    def record(self) -> dict[str, str]:
        """Returns the record for the history of the run that begins with these weights."""
        kept = {"source": self.source, "checkpoint": self.checkpoint}
        return kept | {"digest": self.digest(), "rwp_jax": described()}


def weights_of_run(workdir: pathlib.Path | str, checkpoint: str | None = None) -> InitialWeights:
    """Reads the weights of a run or of a network of the zoo.

    Args:
      workdir: directory of the run, or `zoo:NAME`, which has only the checkpoint on its card.
      checkpoint: see `load_run`; None for `last`, or that of the card.

    Raises:
      InputError: if there is no such run, network or checkpoint.
    """
    if checkpoint is not None and checkpoint not in WHICH:
        raise InputError(f"checkpoint={checkpoint} must be one of {', '.join(WHICH)}")
    with renamed("workdir", "init_from"):
        config = config_of(workdir)
        if str(workdir).startswith(zoo.PREFIX):
            card = zoo.read_card(str(workdir))
            if checkpoint not in (None, card.checkpoint):
                raise InputError(f"checkpoint={checkpoint}: {workdir} has only {card.checkpoint}")
            which, network, saved = card.checkpoint, None, zoo.read_weights(card)
        else:
            which, directory = checkpoint or "last", check_path("workdir", workdir)
            network = read_network_record(directory)
            _, saved = read_checkpoint(directory, which, config)
            saved = saved["ema"] if which.endswith("_ema") else saved
    params = saved["params"]
    return InitialWeights(
        params,
        saved.get("batch_stats", {}),
        (network or record_of_params(params)).num_classes,
        str(workdir),
        which,
        tuple(config.model.mean),
        tuple(config.model.std),
        config.model.activation,
    )
