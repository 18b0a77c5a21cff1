"""`main.py --mode report`: compares any runs, and published learning curves, side by side."""

import collections
import json
import pathlib
from collections.abc import Sequence

from rwp_jax.errors import InputError, renamed
from rwp_jax.report import summary
from rwp_jax.report.curves import draw_learning_curves
from rwp_jax.report.explained import explained
from rwp_jax.report.gate import draw_gate, perturbs
from rwp_jax.report.page import PAGE, Picture, Section, write_page
from rwp_jax.report.published import choose_published, read_published
from rwp_jax.report.results import Result, read_result
from rwp_jax.report.settings import histories, incomparable, settings_table
from rwp_jax.report.table import as_text, write_csv
from rwp_jax.runs.config import FREE

PICTURE, GATE = "learning_curves.png", "gate.png"


def _same_but_seed(result: Result) -> str:
    """Returns a key that is equal for runs with as many epochs and configs that differ only in the seed.

    They also had the same changes during training.
    """
    config = result.config.copy_and_resolve_references().to_dict()
    for key in {"seed", *FREE}:
        config.pop(key, None)
    changes = [(change.after_epochs, change.keys) for change in result.history.changes]
    began = (result.history.init_from or {}).get("digest")
    return json.dumps([config, len(result.epochs), changes, began], sort_keys=True)


def _group(results: Sequence[Result]) -> summary.Groups:
    """Groups runs that differ only in the seed; a group is named by the directory of its first run."""
    groups: dict[tuple, list[Result]] = {}
    for result in results:
        same = [r for key, r in groups.items() if key[0] == _same_but_seed(result)]
        # A second run with the same seed is no sample of other seeds, so it gets its own row.
        again = sum(result.config.seed in [r.config.seed for r in members] for members in same)
        groups.setdefault((_same_but_seed(result), again), []).append(result)
    firsts = [members[0] for members in groups.values()]
    names = [first.directory.name for first in firsts]
    return {
        name if names.count(name) == 1 and name else str(first.directory): members
        for name, first, members in zip(names, firsts, groups.values(), strict=True)
    }


def compare(
    directories: Sequence[pathlib.Path],
    output: pathlib.Path,
    curves: pathlib.Path | None = None,
    only: str = "",
) -> None:
    """Writes report.html, CSV and PNG files that compare runs, finished or not.

    Args:
      directories: directories of the runs.
      output: directory to write to.
      curves: CSV file of published curves, see `published.read_published`.
      only: patterns of the names of published curves to draw; empty for those with the runs' data sets and
        norms.

    Raises:
      InputError: if a directory has no metrics or a file is invalid.
    """
    if only and not curves:
        raise InputError(f"only={only} chooses published curves: curves= is missing")
    distinct = {directory.resolve(): directory for directory in directories}
    times = collections.Counter(directory.resolve() for directory in directories)
    again = [str(directory) for path, directory in distinct.items() if times[path] > 1]
    remarks = [f"Given more than once, shown once: {', '.join(again)}."] if again else []
    with renamed("workdir", "workdirs"):
        results = [read_result(directory) for directory in distinct.values()]
    published = []
    if curves:
        threats = {(r.config.data.name, r.config.threat.norm) for r in results}
        published = choose_published(read_published(curves), only, threats)
        if published:
            names = ", ".join(curve.name for curve in published)
            remarks.append(
                f"Published curves, from {curves}, for as many epochs as the runs have: {names}."
            )
        else:
            remarks.append(
                f"No curve in {curves} has the runs' data sets and norms, and no pattern selects others."
            )
    if output.exists() and not output.is_dir():
        raise InputError(f"workdir={output} is a file, must be a directory")
    output.mkdir(parents=True, exist_ok=True)
    groups = _group(results)
    picture = output / PICTURE
    pictures = [
        Picture(picture, draw_learning_curves(groups, published, "Learning curves", picture))
    ]
    if any(all(map(perturbs, members)) for members in groups.values()):
        caption = draw_gate(groups, "The gate in training", output / GATE)
        pictures.append(Picture(output / GATE, caption))
    remarks += incomparable(results) + histories(results)
    tables = [summary.summary_table(groups)]
    evaluations = summary.evaluation_table(groups)
    tables += [evaluations] if evaluations else []
    unfinished = [str(r.directory) for r in results if not r.finished]
    if unfinished:
        remarks.append(f"Not finished: {', '.join(unfinished)}.")
    runs = f"Runs: {', '.join(map(str, distinct.values()))}."
    settings = settings_table(groups)
    sections = [Section("Runs", pictures, [*tables, settings]), *explained(results)]
    write_page(output / PAGE, "Runs compared", [runs, *remarks], sections)
    for name, table in zip(("accuracies", "attacks"), tables, strict=False):
        write_csv(table, output / f"{name}.csv")
        print(as_text(table))
    write_csv(settings, output / "settings.csv")
    print(*remarks, f"wrote {output / PAGE}", sep="\n")
