"""Files of the zoo: a network NAME.safetensors and its card NAME.json."""

import hashlib
import json
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np

from rwp_jax.errors import InputError
from rwp_jax.files import partial_of, write_json

PREFIX = "zoo:"
NETWORKS = pathlib.Path(__file__).parents[1] / "zoo" / "networks"
LARGEST = 5_000_000  # limit in bytes for all networks together, to keep the package small
_SEPARATOR = "/"


class Card(NamedTuple):
    """Description of a network.

    Attributes:
      name: name in the zoo.
      recipe: command that trained it.
      config: config of its run, as nested dicts of JSON values.
      data: its training and test data, in words.
      epoch: epoch after which it was saved, from 0.
      checkpoint: checkpoint of the run that it is, see `resume_point.WHICH`.
      seeds: seeds of the experiment that it comes from; its own seed is in the config.
      test_images: number of test images behind the accuracies.
      accuracy: column of Table 2 -> `accuracy` in [0, 1] and `interval_95`.
      file: bytes and SHA-256 of NAME.safetensors; `packaged` states whether the package contains it.
      version: version of rwp-jax that trained it.
      commit: its commit of git, empty if unknown.
    """

    name: str
    recipe: str
    config: dict[str, Any]
    data: str
    epoch: int
    checkpoint: str
    seeds: list[int]
    test_images: int
    accuracy: dict[str, dict]
    file: dict[str, Any]
    version: str
    commit: str = ""


def refuse(workdir: pathlib.Path | str, why: str = "a run's directory is needed here") -> None:
    """Raises InputError if `workdir` names a network of the zoo instead of a run's directory."""
    if str(workdir).startswith(PREFIX):
        raise InputError(f"workdir={workdir} is a network of the package: {why}")


def names() -> list[str]:
    """Returns the names of all networks with a card."""
    return sorted(path.stem for path in NETWORKS.glob("*.json"))


def read_card(name: str) -> Card:
    """Reads the card of NAME, with or without the prefix; raises InputError if there is none."""
    name = name.removeprefix(PREFIX)
    if name not in names():
        known = ", ".join(PREFIX + known for known in names()) or "none"
        raise InputError(f"{PREFIX}{name} is not in the zoo; there are {known}")
    content = json.loads((NETWORKS / f"{name}.json").read_text(encoding="utf-8"))
    return Card(name=name, **content)


def _path(name: str) -> pathlib.Path:
    return NETWORKS / f"{name}.safetensors"


def _digest(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_weights(card: Card) -> dict[str, Any]:
    """Reads `params` and `batch_stats` as nested dicts of NumPy arrays.

    Raises:
      InputError: if the package has only the card, or the file does not match the card.
    """
    from safetensors.numpy import load_file

    path = _path(card.name)
    if not card.file["packaged"]:
        raise InputError(
            f"{PREFIX}{card.name} has only a card, its network is too large for the package: "
            f"`{card.recipe}` trains it"
        )
    if not path.is_file() or _digest(path) != card.file["sha256"]:
        raise InputError(
            f"{path} is missing or damaged: it does not match the digest on its card; reinstall "
            "rwp-jax"
        )
    tree: dict[str, Any] = {}
    for key, array in load_file(path).items():
        *parents, leaf = key.split(_SEPARATOR)
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = array
    return tree


def write(card: Card, network: dict[str, Any]) -> Card:
    """Writes the card and, if `card.file["packaged"]`, the network; returns it with size and digest.

    Args:
      card: card whose `file` has only `packaged`.
      network: `params` and `batch_stats`.

    Raises:
      InputError: if the networks together would exceed LARGEST.
    """
    from safetensors.numpy import save

    leaves = jax.tree_util.tree_leaves_with_path(network)
    name_of = lambda path: jax.tree_util.keystr(path, simple=True, separator=_SEPARATOR)
    content = save({name_of(path): np.ascontiguousarray(leaf) for path, leaf in leaves})
    others = [path for path in NETWORKS.glob("*.safetensors") if path != _path(card.name)]
    total = len(content) + sum(path.stat().st_size for path in others)
    if card.file["packaged"] and total > LARGEST:
        raise InputError(
            f"{PREFIX}{card.name}: all networks together would have {total:,} bytes, more than "
            f"{LARGEST:,}; card_only= keeps only the card"
        )
    digest = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    card = card._replace(file={**card.file, **digest})
    if card.file["packaged"]:
        partial = partial_of(_path(card.name))
        partial.write_bytes(content)
        partial.replace(_path(card.name))
    else:
        _path(card.name).unlink(missing_ok=True)
    write_json(
        NETWORKS / f"{card.name}.json", {k: v for k, v in card._asdict().items() if k != "name"}
    )
    return card
