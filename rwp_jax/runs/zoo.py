"""Networks and cards as files: NAME.safetensors beside NAME.json."""

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
LARGEST = 5_000_000  # bytes of all networks together, so that the package stays small
_SEPARATOR = "/"


class Card(NamedTuple):
    """What is known of a network.

    Attributes:
      name: in the zoo.
      recipe: the command that trained it.
      config: of its run, as nested dicts of JSON values.
      data: what it was trained and tested on, in words.
      epoch: after which it was saved, from 0.
      checkpoint: which of the run's that was, see `resume_point.WHICH`.
      seeds: of the experiment that it is from; its own is in the config.
      test_images: that the accuracies are of.
      accuracy: column of Table 2 -> `accuracy` in [0, 1] and `interval_95`.
      file: bytes and SHA-256 of NAME.safetensors; `packaged` says whether it comes with the package.
      version: of rwp-jax, by which it was trained.
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


def refuse(workdir: pathlib.Path | str, why: str = "a run's directory is needed here") -> None:
    """Raises InputError for a network of the zoo where one of a run is needed."""
    if str(workdir).startswith(PREFIX):
        raise InputError(f"workdir={workdir} is a network of the package: {why}")


def names() -> list[str]:
    """All that have a card."""
    return sorted(path.stem for path in NETWORKS.glob("*.json"))


def read_card(name: str) -> Card:
    """The card of NAME, with or without the prefix; raises InputError where there is none."""
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
    """`params` and `batch_stats`, nested dicts of NumPy arrays.

    Raises:
      InputError: where only the card is in the package, or the file is not the card's.
    """
    from safetensors.numpy import load_file

    path = _path(card.name)
    if not card.file["packaged"]:
        raise InputError(
            f"{PREFIX}{card.name} is a card alone, its network is too large for the package: "
            f"`{card.recipe}` trains it"
        )
    if not path.is_file() or _digest(path) != card.file["sha256"]:
        raise InputError(
            f"{path} is missing or damaged: it is not the file whose digest is on its card; install "
            "rwp-jax again"
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
    """Writes card and, where `card.file["packaged"]`, network; returns the card with size and digest.

    Args:
      card: whose `file` has `packaged` alone.
      network: `params` and `batch_stats`.

    Raises:
      InputError: where the networks would be larger than LARGEST together.
    """
    from safetensors.numpy import save

    leaves = jax.tree_util.tree_leaves_with_path(network)
    name_of = lambda path: jax.tree_util.keystr(path, simple=True, separator=_SEPARATOR)
    content = save({name_of(path): np.ascontiguousarray(leaf) for path, leaf in leaves})
    others = [path for path in NETWORKS.glob("*.safetensors") if path != _path(card.name)]
    total = len(content) + sum(path.stat().st_size for path in others)
    if card.file["packaged"] and total > LARGEST:
        raise InputError(
            f"{PREFIX}{card.name}: all networks together would have {total:,} bytes, may have {LARGEST:,}; "
            "card_only= keeps the card alone"
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
