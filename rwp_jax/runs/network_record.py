"""The network record in a run's directory: input shape and the origin of the network's code."""

import json
import pathlib
from typing import NamedTuple

from rwp_jax.errors import InputError
from rwp_jax.files import write_json
from rwp_jax.models.classifier import MODELS, Classifier
from rwp_jax.models.fingerprint import Fingerprint
from rwp_jax.names import by_path
from rwp_jax.registry import Origin

NETWORK = "network.json"


class NetworkRecord(NamedTuple):
    """Facts about a run's network that its config lacks.

    Attributes:
      image_shape: [H, W, C] of its training images; H and W are 0 if unknown.
      num_classes: number of classes.
      model: where the model was registered; None for the package's models.
      objective: where the objective was registered; None for the package's objectives.
      program: fingerprint of the model's computation when training began; None for the package's models.
    """

    image_shape: tuple[int, int, int]
    num_classes: int
    model: Origin | None = None
    objective: Origin | None = None
    program: Fingerprint | None = None


def write_network_record(directory: pathlib.Path, network: NetworkRecord) -> None:
    """Writes the record to the directory of a run."""
    parts = {"model": network.model, "objective": network.objective, "program": network.program}
    plain = {name: part and part._asdict() for name, part in parts.items()}
    write_json(directory / NETWORK, network._asdict() | plain)


def read_network_record(directory: pathlib.Path) -> NetworkRecord | None:
    """Reads the record; None for older versions, which wrote none and had only the package's networks.

    Raises:
      InputError: if the file is damaged.
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
        raise InputError(f"{path} cannot be read ({type(error).__name__}): restore it") from None


def keep_network_record(directory: pathlib.Path, network: NetworkRecord) -> bool:
    """Writes the record when a run starts or resumes; returns whether the network has changed since.

    `program` is kept from when training began. The other fields are updated: the module may have moved,
    and the image size of a run that began with imported weights becomes known only now.
    """
    held = read_network_record(directory)
    begun = network.program if held is None else held.program
    write_network_record(directory, network._replace(program=begun))
    return bool(begun and network.program and begun.differs(network.program))


def record_of_params(params) -> NetworkRecord:
    """Derives the record of one of the package's networks from its parameters."""
    if "conv1" not in params or "linear" not in params:
        raise InputError(f"{NETWORK} is missing: a run with a user-defined network needs it")
    channels = params["conv1"]["kernel"].shape[2]
    return NetworkRecord((0, 0, channels), params["linear"]["bias"].shape[0])


def require_model(directory: pathlib.Path, name: str, network: NetworkRecord | None) -> None:
    """Imports the module that registers the model of a run; raises InputError if that fails."""
    if network and network.model:
        MODELS.require(name, network.model, f"workdir={directory}")


def check_shapes(classifier: Classifier, network: NetworkRecord, variables: tuple) -> None:
    """Raises InputError if the arrays of a user-defined network no longer have the trained shapes."""
    for now, held in zip(classifier.shapes(network.image_shape), variables, strict=True):
        check_same_shapes(now, held)


def check_same_shapes(now, held) -> None:
    """Raises InputError if the arrays `held` in a checkpoint differ in shape from the present network's."""
    shapes = lambda tree: {name: leaf.shape for name, leaf in by_path(tree).items()}
    there, here = shapes(held), shapes(now)
    changed = [name for name in here | there if there.get(name) != here.get(name)]
    if changed:
        raise InputError(
            f"the checkpoint does not fit the network that is registered now: {changed[0]} is "
            f"{there.get(changed[0], 'missing')} there, {here.get(changed[0], 'missing')} here"
        )
