"""Whether what a directory holds is of the run that is to go on there: config, data and checkpoints."""

import pathlib
from collections.abc import Iterable
from typing import Any

from rwp_jax.data.sources import Dataset
from rwp_jax.errors import InputError
from rwp_jax.files import array_digests
from rwp_jax.runs import layout
from rwp_jax.runs.config import differences, flatten
from rwp_jax.runs.metrics import read_metrics


def marks(config: dict[str, Any], data: Dataset | None) -> dict[str, dict[str, Any]]:
    """What the records of a run's checkpoints carry of it.

    Args:
      config: as nested dicts of JSON values.
      data: that it trains on and is tested on; None where they have not been read.
    """
    digests = {"data": array_digests(data._asdict())} if data else {}
    return {"config": flatten(config)} | digests


def check_records(
    directory: pathlib.Path, records: Iterable[dict[str, Any]], mine: dict[str, dict[str, Any]]
) -> None:
    """Raises InputError where a checkpoint is of another run.

    Args:
      directory: of the run.
      records: of its checkpoints; marks that one lacks, as older versions wrote none, are not compared.
      mine: the marks that they should have.
    """
    for record in records:
        which = f"workdir={directory}: the checkpoint of step {record['step']}"
        found = differences(record.get("config", mine["config"]), mine["config"])
        if found:
            raise InputError(
                f"{which} is of another run ({'; '.join(found)}): put back this run's checkpoints, "
                "or choose another directory"
            )
        data, now = record.get("data", mine["data"]), mine["data"]
        names = sorted(data.keys() | now.keys())
        changed = [name for name in names if data.get(name) != now.get(name)]
        if changed:
            raise InputError(
                f"{which} was trained on other data ({', '.join(changed)} changed): put back the data, or "
                "choose another directory"
            )


def check_not_lost(directory: pathlib.Path) -> None:
    """Raises InputError where a directory without checkpoints once had some: its metrics would go too."""
    # An epoch's metrics are written before its checkpoint, which may take until the next one's.
    epochs = {record["epoch"] for record in read_metrics(directory)}
    if (directory / layout.SUMMARY).exists() or len(epochs) > 2:
        raise InputError(
            f"workdir={directory} holds the metrics of a run, but its checkpoints are gone: put them "
            "back, or choose another directory"
        )
