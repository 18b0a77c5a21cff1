"""The history of a run in its config.json: keys that changed during it, weights that it began with."""

import json
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from rwp_jax.errors import InputError, first_line
from rwp_jax.files import write_json
from rwp_jax.runs.config import HISTORY, LISTED, MEASURE, PATHS, flatten, with_values

CONFIG = "config.json"


class Change(NamedTuple):
    """Keys of the config that changed during a run.

    Attributes:
      after_epochs: number of epochs done before the change.
      after_steps: number of training steps done before the change.
      keys: key -> [old value, new value]; None if the config has no such key.
      rwp_jax: version that made the change.
    """

    after_epochs: int
    after_steps: int
    keys: dict[str, list]
    rwp_jax: str

    def described(self) -> str:
        """Describes the change in a line."""
        shown = lambda value: "missing" if value is None else value
        found = [
            f"config.{key}={shown(new)} (was {shown(old)})" for key, (old, new) in self.keys.items()
        ]
        found[LISTED:] = [f"and {len(found) - LISTED} more"] * (len(found) > LISTED)
        return f"from epoch {self.after_epochs + 1} on {', '.join(found)}"


class Stretch(NamedTuple):
    """Epochs of a run that have the same config.

    Attributes:
      config: their config, by dotted key.
      first: first of these epochs, counted from 0.
      end: epoch after the last one.
      steps_before: number of training steps before `first`.
    """

    config: dict[str, Any]
    first: int
    end: int
    steps_before: int


class History(NamedTuple):
    """History of a run.

    Attributes:
      changes: changes of its config, in order.
      init_from: record of the weights that it began with, see `initial_weights`; None if they were drawn.
    """

    changes: tuple[Change, ...] = ()
    init_from: dict[str, Any] | None = None

    @classmethod
    def of(cls, content: dict[str, Any]) -> "History":
        """Returns the history from the content of config.json; raises TypeError if that is malformed."""
        entry = content.get(HISTORY, {})
        changes = tuple(Change(**change) for change in entry.get("changes", ()))
        for change in changes:
            counts = change.after_epochs, change.after_steps
            pairs = change.keys.values()
            if not all(isinstance(count, int) for count in counts) or any(
                len(p) != 2 for p in pairs
            ):
                raise TypeError(f"its {HISTORY} is malformed")
        return cls(changes, entry.get("init_from"))

    def as_json(self) -> dict[str, Any]:
        """Returns what config.json has beside the config: nothing for a run without a history."""
        entry: dict[str, Any] = {}
        if self.init_from:
            entry["init_from"] = self.init_from
        if self.changes:
            entry["changes"] = [change._asdict() for change in self.changes]
        return {HISTORY: entry} if entry else {}

    def config_at(self, config: dict[str, Any], epoch: int) -> dict[str, Any]:
        """Returns the config of an epoch, counted from 0 (-1: before training), by dotted key.

        Args:
          config: the run's newest config, by dotted key.
          epoch: epoch; later changes are undone.
        """
        for change in reversed(self.changes):
            if change.after_epochs > epoch:
                before = {key: old for key, (old, _) in change.keys.items()}
                config = {k: v for k, v in {**config, **before}.items() if v is not None}
        return config

    def begin(self, epoch: int) -> tuple[int, int]:
        """Returns the epochs and steps before the stretch that contains an epoch, counted from 0."""
        begun = [(0, 0), *((c.after_epochs, c.after_steps) for c in self.changes)]
        return [pair for pair in begun if pair[0] <= max(epoch, 0)][-1]

    def stretches(self, config: dict[str, Any]) -> Iterator[Stretch]:
        """Yields the stretches of a run with this newest config (by dotted key), without empty ones."""
        ends = [*(change.after_epochs for change in self.changes), config["epochs"]]
        for first in dict.fromkeys([0, *ends[:-1]]):
            end = min((end for end in ends if end > first), default=first)
            if first < end:
                own = self.config_at(config, first)
                yield Stretch(own, first, end, self.begin(first)[1])

    def measured_since(self, epochs: int) -> int:
        """Returns after how many of these epochs what accuracies depend on changed for the last time."""
        begun = (
            change.after_epochs
            for change in self.changes
            if change.keys.keys() & set(MEASURE) and change.after_epochs < epochs
        )
        return max(begun, default=0)


def read(directory: pathlib.Path) -> tuple[dict[str, Any], History]:
    """Reads the config of a run, nested as it is stored, and its history from config.json.

    Raises:
      InputError: if the file is missing or damaged.
    """
    path = directory / CONFIG
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        history = History.of(content)
        content.pop(HISTORY, None)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path} cannot be read ({first_line(error)}): restore it") from None
    return content, history


def write(directory: pathlib.Path, config: dict[str, Any], history: History) -> None:
    """Writes the nested config of a run and its history to config.json."""
    write_json(directory / CONFIG, config | history.as_json())


def record(directory: pathlib.Path, config: dict[str, Any], history: History) -> list[str]:
    """Writes the changes of a run that goes on, and the paths of its data, which may have moved.

    A change after which no epoch is left is not written.

    Args:
      directory: directory of the run.
      config: config that it goes on with, by dotted key.
      history: its history, with all changes.

    Returns:
      A line for each new change.
    """
    held, before = read(directory)
    flat = flatten(held)
    values = {key: config[key] for key in PATHS if flat.get(key) not in (None, config[key])}
    lines, kept = [], list(before.changes)
    for change in history.changes[len(before.changes) :]:
        if change.after_epochs < config["epochs"]:
            kept.append(change)
            values |= {key: new for key, (_, new) in change.keys.items()}
            lines.append(f"{directory}: {change.described()}")
        else:
            keys = ", ".join(f"config.{key}" for key in change.keys)
            lines.append(f"{directory}: no epoch is left for the new {keys}")
    if values:
        write(directory, with_values(held, values), history._replace(changes=tuple(kept)))
    return lines
