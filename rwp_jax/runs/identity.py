"""Checks that a directory belongs to the run being resumed: its config, data and checkpoints."""

import pathlib
from collections.abc import Iterable
from typing import Any

from rwp_jax.data.sources import Dataset
from rwp_jax.data.stored import StoredImages
from rwp_jax.errors import InputError
from rwp_jax.files import array_digests
from rwp_jax.runs import layout
from rwp_jax.runs.config import PATHS, differences, flatten
from rwp_jax.runs.history import History
from rwp_jax.runs.metrics import read_metrics

_EXTRA_DATA = (
    "extra_data.path",
    "extra_data.use_labels",
)  # the other keys change how they are used


def marks(config: dict[str, Any], data: Dataset | None) -> dict[str, dict[str, Any]]:
    """Returns the marks that identify a run in the records of its checkpoints.

    Args:
      config: config of the run, as nested dicts of JSON values.
      data: its training and test data; None if they have not been read.
    """
    return {"config": flatten(config)} | ({"data": _digests(data)} if data else {})


def _digests(data: Dataset) -> dict[str, str]:
    """Returns the digest of every array; images on disk have that of the same images in memory."""
    arrays = data._asdict()
    if not isinstance(data.x_extra, StoredImages):
        return array_digests(arrays)
    return array_digests(arrays | {"x_extra": None}) | {"x_extra": data.x_extra.digest}


def check_records(
    directory: pathlib.Path,
    records: Iterable[dict[str, Any]],
    mine: dict[str, dict[str, Any]],
    history: History,
) -> None:
    """Raises InputError if a checkpoint belongs to another run.

    Args:
      directory: directory of the run.
      records: records of its checkpoints. Marks missing from a record, as in older versions, are not
        compared.
      mine: the marks that the records must have, with the run's newest config.
      history: changes of the config, which records of earlier epochs do not have yet.
    """
    for record in records:
        which = f"workdir={directory}: the checkpoint of step {record['step']}"
        config = history.config_at(mine["config"], record["epoch"])
        found = differences(record.get("config", config), config)
        if found:
            raise InputError(
                f"{which} belongs to another run ({'; '.join(found)}): restore this run's checkpoints, "
                "or choose another directory"
            )
        if "data" not in record:  # without digests the paths have to be equal
            _check_paths(which, record.get("config", {}), mine["config"])
            continue
        data, now = record["data"], mine["data"]
        names = sorted(data.keys() | now.keys())
        changed = [name for name in names if data.get(name) != now.get(name)]
        if changed:
            by = _data_keys(record.get("config", {}), mine["config"])
            raise InputError(
                f"{which} was trained on other data ({', '.join(changed)} changed{by}): restore the data, "
                "or choose another directory"
            )


def _data_keys(held: dict[str, Any], mine: dict[str, Any]) -> str:
    """Names the keys that select other data of the same files than before; "" if there are none."""
    found = [
        f"config.{key}={mine[key]!r} (was {value!r})"
        for key, value in held.items()
        if key.startswith(("data.", *_EXTRA_DATA)) and mine.get(key, value) != value
    ]
    return f" by {', '.join(found)}" if found else ""


def _check_paths(which: str, held: dict[str, Any], mine: dict[str, Any]) -> None:
    """Raises InputError if the data of a run without digests are stored elsewhere."""
    for key in PATHS:
        if key in held and held[key] != mine.get(key):
            raise InputError(
                f"{which} has no digests of its data, and config.{key}={held[key]!r} there, "
                f"{mine.get(key)!r} here: give the old path, or choose another directory"
            )


def check_data(which: str, digests: dict[str, str], data: Dataset) -> None:
    """Raises InputError if images or labels differ from those that a network was trained with.

    Args:
      which: the run, first in the message.
      digests: from the record of its checkpoint; empty for older versions, whose data are not checked.
      data: the data set, whose extra data are not compared.
    """
    compared = data._replace(x_extra=None, y_extra=None)._asdict()
    now = array_digests({name: value for name, value in compared.items() if value is not None})
    changed = sorted(name for name in now.keys() & digests.keys() if now[name] != digests[name])
    if changed:
        raise InputError(
            f"{which}: its data have changed since training ({', '.join(changed)}): restore them, or "
            "evaluate other images by data="
        )


def check_not_lost(directory: pathlib.Path) -> None:
    """Raises InputError if a directory has lost its checkpoints, as a new run would delete its metrics."""
    # An epoch's metrics are written before its checkpoint, which may not finish until the next epoch's.
    epochs = {record["epoch"] for record in read_metrics(directory)}
    if (directory / layout.SUMMARY).exists() or len(epochs) > 2:
        raise InputError(
            f"workdir={directory} holds the metrics of a run, but its checkpoints are gone: restore "
            "them, or choose another directory"
        )
