"""Finds out what a path leads to, and says it."""

import pathlib

from rwp_jax.data import stored
from rwp_jax.errors import InputError, check_path
from rwp_jax.importing import array_files, file_kinds
from rwp_jax.inspection import data_files, network_files, run_directory
from rwp_jax.inspection.findings import Findings, Unsound, as_text
from rwp_jax.names import listed
from rwp_jax.pytorch import import_
from rwp_jax.runs import layout, zoo
from rwp_jax.runs.checkpoint import DIRECTORY


def inspect(path: str, config=None, key: str = "", program: str = "rwp-jax") -> None:
    """Prints what a run, a checkpoint, a file of weights or of data is, and how to use it.

    Nothing is written, and no code in files is run.

    Args:
      path: file or directory, or `zoo:NAME`.
      config: config to compare with that of a run; None for no comparison.
      key: key of the network in a file that holds several.
      program: name of the program in the commands.

    Raises:
      InputError: if there is nothing there, or it is unknown.
      Unsound: if it is damaged, or has numbers that are not finite.
    """
    found = find_out(path, key)
    if config is not None:
        found.rows.extend(_comparison(path, found, config))
    print(as_text(path, found, program))
    if found.problems:
        more = f" (and {len(found.problems) - 1} more)" if len(found.problems) > 1 else ""
        raise Unsound(f"{path} is unsound: {found.problems[0]}{more}")


def find_out(path: str, key: str = "") -> Findings:
    """Returns what `inspect` prints; raises InputError if the path leads to nothing known."""
    if path.startswith(zoo.PREFIX):
        return _card(path)
    place = check_path("path", path)
    if not place.exists():
        raise InputError(f"path={path} does not exist")
    try:
        return _directory(place, key) if place.is_dir() else _file(place, key)
    except InputError as error:
        text = str(error).replace("torch_key=", "key=")
        raise InputError(text if text.startswith("path=") else f"path={text}") from None
    except OSError as error:
        raise InputError(f"path={path} cannot be read ({error.strerror})") from None


def _directory(place: pathlib.Path, key: str) -> Findings:
    if (place / layout.CONFIG).is_file():
        return run_directory.inspect_run(place)
    if stored.is_set(place):
        return data_files.inspect_set(place)
    if data_files.is_corruptions(place):
        return data_files.inspect_corruptions(place)
    if place.name == DIRECTORY and (place.parent / layout.CONFIG).is_file():
        raise InputError(f"{place} holds the checkpoints of the run {place.parent}: inspect that")
    runs = sorted(config.parent for config in place.glob(f"*/{layout.CONFIG}"))
    runs = runs or sorted(config.parent for config in place.glob(f"runs/*/{layout.CONFIG}"))
    if runs:
        names = listed([str(run.relative_to(place)) for run in runs])
        raise InputError(f"{place} holds runs ({names}): inspect one, such as {runs[0]}")
    if array_files.kind_of(place):
        found = network_files.inspect_jax(place, key)
        run = place.parent.parent
        if place.parent.name == DIRECTORY and (run / layout.CONFIG).is_file():
            found.rows.append(("part of", f"the run {run}: inspect that for its digests"))
        return found
    names = listed(sorted(entry.name for entry in place.iterdir())) or "nothing"
    raise InputError(
        f"{place} is no run, checkpoint or directory of data that is known (it holds {names})"
    )


def _file(place: pathlib.Path, key: str) -> Findings:
    kind = array_files.kind_of(place)
    if kind in ("npz", "pickle") and not key:
        found = data_files.inspect_data(place, kind)
        if found is not None:
            return found
    if kind and import_.is_of_jax(place):
        return network_files.inspect_jax(place, key)
    what = file_kinds.describe(place) if not kind else ""
    if what:
        raise InputError(f"{place} is no run, checkpoint or file of data: it is {what}")
    return network_files.inspect_torch(place, key)


def _card(path: str) -> Findings:
    card = zoo.read_card(path)
    zoo.read_weights(card)  # compares the file with the digest on the card
    accuracies = ", ".join(f"{name} {a['accuracy']:.2%}" for name, a in card.accuracy.items())
    threat = card.config["threat"]
    rows = [
        ("network", str(card.config["model"]["name"])),
        ("trained", f"{card.epoch + 1} epochs, {card.checkpoint} checkpoint"),
        ("threat model", f"{threat['norm']}, epsilon {threat['epsilon']:.6g}"),
        ("data", card.data),
        ("accuracies", accuracies),
        ("version", f"rwp-jax {card.version}"),
    ]
    return Findings(
        "a network of the package", rows, [], [f"rwp_jax.load_run({path!r})", card.recipe]
    )


def _comparison(path: str, found: Findings, config) -> list[tuple[str, str]]:
    if found.kind == "a run":
        return run_directory.compare(check_path("path", path), config)
    return [("--config", f"has config.model.name={config.model.name!r}")]
