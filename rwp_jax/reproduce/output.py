"""Writes the report of an experiment: a page, tables and a picture."""

import pathlib
from collections.abc import Sequence

from rwp_jax.hardware import cost
from rwp_jax.report import summary
from rwp_jax.report.explained import explained
from rwp_jax.report.page import PAGE, write_page
from rwp_jax.report.published import PublishedCurve, choose_published
from rwp_jax.report.results import read_result
from rwp_jax.report.table import as_text, write_csv
from rwp_jax.reproduce.experiments import Experiment
from rwp_jax.reproduce.presentation import lay_out
from rwp_jax.reproduce.run_list import Run
from rwp_jax.reproduce.scales import SCALES


def _by_setting(trained) -> dict:
    """Groups results by (group, label)."""
    settings: dict[tuple, list] = {}
    for point, result in trained:
        settings.setdefault((point.group, point.label), []).append(result)
    return settings


def write_report(
    wanted: Experiment,
    runs: Sequence[Run],
    output: pathlib.Path,
    overrides: Sequence[str],
    published: Sequence[PublishedCurve] = (),
) -> None:
    """Writes report.html, CSV and PNG files of the finished runs, and prints the tables.

    Args:
      wanted: the experiment.
      runs: all of its runs.
      output: directory to write to.
      overrides: the overrides given to the runs.
      published: published curves to choose from.
    """
    trained = [(run.point, read_result(run.directory)) for run in runs if run.finished]
    output.mkdir(parents=True, exist_ok=True)
    threats = {(result.config.data.name, result.config.threat.norm) for _, result in trained}
    beside = choose_published(published, "", threats)
    section = lay_out(wanted, trained, output / f"{wanted.name}.png", beside)
    names = [f"{wanted.name}.csv", f"{wanted.name}_differences.csv"][: len(section.tables)]
    for table, csv_name in zip(section.tables, names, strict=True):
        write_csv(table, output / csv_name)
    counts = {len(members) for members in _by_setting(trained).values()}
    epochs = sorted({len(result.epochs) for _, result in trained})
    tests = sorted({cost.data_size(run.config).test for run in runs})
    said = {
        text.partition("=")[0]: text for text in overrides
    }.values()  # of one key the last counts
    introduction = [
        f"At the scale of {SCALES[wanted.scale].described}: {len(trained)} of {len(runs)} runs are "
        f"finished, {' or '.join(map(str, sorted(counts)))} of a setting.",
        f"Trained for {' or '.join(map(str, epochs))} epochs."
        + (f" Set by --override: {', '.join(said)}." if overrides else ""),
        *(f"{summary.standard_error(count)}." for count in tests),
    ]
    if published:
        drawn = ", ".join(curve.name for curve in beside) or "none of the runs' data set and norm"
        introduction.append(f"Published curves: {drawn}.")
    if wanted.finding:
        introduction.append(f"The paper's finding: {wanted.finding}.")
    sections = [section, *explained([result for _, result in trained])]
    write_page(output / PAGE, wanted.title, introduction, sections)
    for table in section.tables:
        print(as_text(table))
        print(table.note)
    names += [picture.path.name for picture in section.pictures]
    print(*section.findings, f"wrote {output / PAGE}, {', '.join(names)}", sep="\n")
