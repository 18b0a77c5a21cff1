"""The metrics of a run: metrics.jsonl and TensorBoard scalars."""

import json
import pathlib
from collections.abc import Sequence

from tensorboardX import SummaryWriter

from rwp_jax.distributed import processes
from rwp_jax.files import write_text

FILE = "metrics.jsonl"


def read_metrics(workdir: pathlib.Path) -> list[dict]:
    """Reads the records of a run's metrics.jsonl in order, up to the first line that is not a record."""
    path = pathlib.Path(workdir) / FILE
    records = []
    text = path.read_bytes().decode(errors="replace") if path.exists() else ""
    for line in text.splitlines():
        try:
            record = json.loads(line)
            _ = record["epoch"], record["split"]
        except (ValueError, TypeError, KeyError):
            break  # a last line that a kill cut short
        records.append(record)
    return records


class MetricsWriter:
    """Keeps records; the first process appends them to metrics.jsonl, one per line, and to TensorBoard."""

    def __init__(self, workdir: pathlib.Path, records: Sequence[dict], first_epoch: int):
        """Opens metrics.jsonl and TensorBoard's file.

        Args:
          workdir: directory of the run.
          records: new content of metrics.jsonl. Other lines in it belong to epochs that will be repeated,
            and are dropped.
          first_epoch: epoch that is written next, from 0.
        """
        self.records = list(records)
        self._writes = processes.is_first()
        if not self._writes:
            return
        path = pathlib.Path(workdir) / FILE
        write_text(path, "".join(json.dumps(record) + "\n" for record in records))
        self._file = path.open("a")
        # A kill loses what has not been flushed: one second's worth, not the default's two minutes'.
        self._board = SummaryWriter(str(workdir), purge_step=first_epoch + 1, flush_secs=1)

    def write(self, epoch: int, step: int, split: str, figures: dict[str, float]) -> None:
        """Writes the figures of one split, such as `train` or `test`, after `epoch` (counted from 0)."""
        record = {"epoch": epoch, "step": step, "split": split, **figures}
        self.records.append(record)
        if not self._writes:
            return
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        for name, value in figures.items():
            self._board.add_scalar(f"{split}/{name}", value, epoch + 1)  # from 1, for people

    def close(self) -> None:
        if self._writes:
            self._file.close()
            self._board.close()
