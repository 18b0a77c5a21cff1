"""What a run's directory says of its network beside the config: its images, and whose code it is."""

import json
import pathlib
from typing import NamedTuple

import jax

from rwp_jax.errors import InputError
from rwp_jax.files import write_json
from rwp_jax.models.classifier import MODELS, Classifier
from rwp_jax.models.fingerprint import Fingerprint
from rwp_jax.registry import Origin

NETWORK = "network.json"


class NetworkRecord(NamedTuple):
    """Of a run's network.

    Attributes:
      image_shape: [H, W, C] of the images that it trains on; H and W are 0 where they are not known.
      num_classes: that it tells apart.
      model: where the model was registered, None for the package's own.
      objective: where the objective was, likewise.
      program: what the model computed when training began; None for the package's own.
    """

    image_shape: tuple[int, int, int]
    num_classes: int
    model: Origin | None = None
    objective: Origin | None = None
    program: Fingerprint | None = None


def write_network_record(directory: pathlib.Path, network: NetworkRecord) -> None:
    """Writes it to the directory of a run."""
    parts = {"model": network.model, "objective": network.objective, "program": network.program}
    plain = {name: part and part._asdict() for name, part in parts.items()}
    write_json(directory / NETWORK, network._asdict() | plain)


def read_network_record(directory: pathlib.Path) -> NetworkRecord | None:
    """Reads it; None for runs of versions that wrote none, whose networks are the package's own.

    Raises:
      InputError: where the file is damaged.
    """
    path = directory / NETWORK
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text())
        origins = {
            kind: content[kind] and Origin(**content[kind]) for kind in ("model", "objective")
        }
        program = content.get("program") and Fingerprint(**content["program"])
        shape, classes = tuple(content["image_shape"]), int(content["num_classes"])
        return NetworkRecord(shape, classes, program=program, **origins)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} cannot be read ({type(error).__name__}): put it back") from None


def keep_network_record(directory: pathlib.Path, network: NetworkRecord) -> bool:
    """Writes it where a run begins or goes on; returns whether the network of one that goes on has changed.

    What the model computed stays as it was when training began. The rest is that of now: the module may
    have moved, and a run that began with imported weights learns the size of its images.
    """
    held = read_network_record(directory)
    begun = network.program if held is None else held.program
    write_network_record(directory, network._replace(program=begun))
    return bool(begun and network.program and begun.differs(network.program))


def record_of_params(params) -> NetworkRecord:
    """The same of one of the package's own networks, by its parameters."""
    if "conv1" not in params or "linear" not in params:
        raise InputError(f"{NETWORK} is missing: a run on a network of one's own needs it")
    channels = params["conv1"]["kernel"].shape[2]
    return NetworkRecord((0, 0, channels), params["linear"]["bias"].shape[0])


def require_model(directory: pathlib.Path, name: str, network: NetworkRecord | None) -> None:
    """Imports what registers the model of a run; raises InputError where that is not possible."""
    if network and network.model:
        MODELS.require(name, network.model, f"workdir={directory}")


def check_shapes(classifier: Classifier, network: NetworkRecord, variables: tuple) -> None:
    """Raises InputError where a network of the user's own is not any more what was trained."""
    wanted = jax.eval_shape(lambda: classifier.init(jax.random.key(0), network.image_shape))
    for now, held in zip(wanted, variables, strict=True):
        check_same_shapes(now, held)


def check_same_shapes(now, held) -> None:
    """Raises InputError unless arrays of a checkpoint have the shapes of those that the network has now."""
    shapes = lambda tree: {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
    there, here = shapes(held), shapes(now)
    changed = [name for name in here | there if there.get(name) != here.get(name)]
    if changed:
        raise InputError(
            f"the checkpoint does not fit the network that is registered now: {changed[0]} is "
            f"{there.get(changed[0], 'missing')} there, {here.get(changed[0], 'missing')} here"
        )
