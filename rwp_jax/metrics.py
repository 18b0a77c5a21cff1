"""What a run writes down: metrics.jsonl and TensorBoard scalars."""

import json
import pathlib

from tensorboardX import SummaryWriter

from rwp_jax.atomic import write_text

FILE = "metrics.jsonl"


def read_metrics(workdir: pathlib.Path) -> list[dict]:
    """The records of a run's metrics.jsonl, in order; an unfinished last line is left out."""
    path = pathlib.Path(workdir) / FILE
    records = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            records.append(json.loads(line))
        except ValueError:
            break  # what a kill left of the last line
    return records


class MetricsWriter:
    """Appends one JSON object per line to metrics.jsonl and the figures to TensorBoard."""

    def __init__(self, workdir: pathlib.Path, records: list[dict], first_epoch: int):
        """Opens both.

        Args:
          workdir: of the run.
          records: what metrics.jsonl holds from now on; anything else in it was written by an epoch that
            is done again.
          first_epoch: the next to be written.
        """
        self.records = list(records)
        path = pathlib.Path(workdir) / FILE
        write_text(path, "".join(json.dumps(record) + "\n" for record in records))
        self._file = path.open("a")
        self._board = SummaryWriter(str(workdir), purge_step=first_epoch)

    def write(self, epoch: int, step: int, split: str, figures: dict[str, float]) -> None:
        """Writes the figures of one split, `train` or `test`, after `epoch` (counted from 0)."""
        record = {"epoch": epoch, "step": step, "split": split, **figures}
        self.records.append(record)
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        for name, value in figures.items():
            self._board.add_scalar(f"{split}/{name}", value, epoch)

    def close(self) -> None:
        self._file.close()
        self._board.close()
