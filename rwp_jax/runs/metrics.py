"""What a run writes down: metrics.jsonl and TensorBoard scalars."""

import json
import pathlib
from collections.abc import Sequence

from tensorboardX import SummaryWriter

from rwp_jax.distributed import processes
from rwp_jax.files import write_text

FILE = "metrics.jsonl"


def read_metrics(workdir: pathlib.Path) -> list[dict]:
    """The records of a run's metrics.jsonl, in order, up to the first line that is none."""
    path = pathlib.Path(workdir) / FILE
    records = []
    text = path.read_bytes().decode(errors="replace") if path.exists() else ""
    for line in text.splitlines():
        try:
            record = json.loads(line)
            _ = record["epoch"], record["split"]
        except (ValueError, TypeError, KeyError):
            break  # what a kill left of the last line
        records.append(record)
    return records


class MetricsWriter:
    """Keeps records; the first process appends them to metrics.jsonl, a line each, and to TensorBoard."""

    def __init__(self, workdir: pathlib.Path, records: Sequence[dict], first_epoch: int):
        """Opens both.

        Args:
          workdir: of the run.
          records: what metrics.jsonl holds from now on; anything else in it was written by an epoch that
            is done again.
          first_epoch: the next to be written.
        """
        self.records = list(records)
        self._writes = processes.is_first()
        if not self._writes:
            return
        path = pathlib.Path(workdir) / FILE
        write_text(path, "".join(json.dumps(record) + "\n" for record in records))
        self._file = path.open("a")
        # A kill takes what its thread has not written yet: a second's worth, not two minutes'.
        self._board = SummaryWriter(str(workdir), purge_step=first_epoch + 1, flush_secs=1)

    def write(self, epoch: int, step: int, split: str, figures: dict[str, float]) -> None:
        """Writes the figures of one split, `train` or `test`, after `epoch` (counted from 0)."""
        record = {"epoch": epoch, "step": step, "split": split, **figures}
        self.records.append(record)
        if not self._writes:
            return
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        for name, value in figures.items():
            self._board.add_scalar(f"{split}/{name}", value, epoch + 1)  # as people count

    def close(self) -> None:
        if self._writes:
            self._file.close()
            self._board.close()
