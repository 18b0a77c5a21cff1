"""Tables that compare runs: accuracies of the selected epochs, and the columns of Table 2."""

import math
from collections.abc import Callable, Sequence

from rwp_jax.report.results import Result
from rwp_jax.report.spread import Spread, spread
from rwp_jax.report.table import MISSING, Table
from rwp_jax.runs.layout import COLUMNS

Groups = dict[str, Sequence[Result]]  # name -> runs that differ only in the seed

INTERVALS = (
    "Brackets: 95% intervals, Student's over seeds (for other seeds on the same images), or Wilson's over "
    "test images if there is only one seed (for other images)."
)
CHOSEN_BY = {  # epoch -> how it is selected, in words
    "best": "best epoch evaluated, by the test set, as in the paper",
    "best_by_validation": "best on held-out training images",
    "best_ema": "averaged weights, best on the test set",
    "best_by_validation_ema": "averaged weights, best on held-out training images",
    "last": "last epoch evaluated",
    "last_ema": "averaged weights, last epoch",
}


def accuracy(results: Sequence[Result], which: str, name: str) -> Spread | None:
    """Returns the spread over runs of a test accuracy, such as `pgd_accuracy`, of the epoch `which`."""
    prefix = "ema_" if which.endswith("_ema") else ""
    examples = results[0].test_images if results else None
    value = spread((result.figure(which, prefix + name) for result in results), examples)
    return value.within(0, 1) if value else None


def fall(result: Result) -> float | None:
    """Computes the fall of PGD accuracy from the best epoch to the last: robust overfitting."""
    best, last = (result.figure(which, "pgd_accuracy") for which in ("best", "last"))
    return None if None in (best, last) else best - last


def gap(result: Result) -> float | None:
    """Computes the robust generalisation gap after the last epoch: training minus test PGD accuracy."""
    training, test = (result.figure("last", f"{p}pgd_accuracy") for p in ("train_", ""))
    return None if None in (training, test) else training - test


def mean_gap(results: Sequence[Result]) -> Spread | None:
    """Returns the spread over runs of the robust generalisation gap."""
    return spread(map(gap, results))


def mean_steps(results: Sequence[Result]) -> Spread | None:
    """Returns the number of weight ascent steps taken, averaged over training."""
    steps = spread(result.mean("train_perturbation_steps") for result in results)
    return steps and steps.within(0, math.inf)


def cell(value: Spread | None) -> str:
    """Formats an accuracy in %."""
    return MISSING if value is None else value.percent()


def _without_empty_columns(header: list[str], rows: list[list[str]]) -> tuple[list, list]:
    kept = [
        i
        for i in range(len(header))
        if i == 0 or any(row[i] != MISSING for row in rows) or not rows
    ]
    return [header[i] for i in kept], [[row[i] for i in kept] for row in rows]


def summary_table(groups: Groups) -> Table:
    """Returns a table with a row per group: natural and PGD accuracy of selected epochs, gap and steps."""
    columns: dict[str, Callable[[Sequence[Result]], str]] = {
        "seeds": lambda results: str(len(results)),
        "epochs": lambda results: str(min(len(result.epochs) for result in results)),
    }
    for which in CHOSEN_BY:
        for title, name in (("natural", "natural_accuracy"), ("PGD", "pgd_accuracy")):
            columns[f"{which.replace('_', ' ')}: {title}"] = (
                lambda results, which=which, name=name: cell(accuracy(results, which, name))
            )
    columns["best − last: PGD"] = lambda results: cell(spread(map(fall, results)))
    columns["last: PGD, training − test"] = lambda results: cell(mean_gap(results))
    columns["mean k"] = lambda results: (
        f"{value.mean:.2f}" if (value := mean_steps(results)) else MISSING
    )
    rows = [
        [name, *(column(results) for column in columns.values())]
        for name, results in groups.items()
    ]
    header, rows = _without_empty_columns(["run", *columns], rows)
    shown = [w for w in CHOSEN_BY if any(h.startswith(w.replace("_", " ") + ":") for h in header)]
    explained = "; ".join(f"{which.replace('_', ' ')}: {CHOSEN_BY[which]}" for which in shown)
    note = (
        f"Test accuracy in %; {explained}. best − last is never negative: noise alone makes it positive. "
        f"{INTERVALS} k: steps of weight ascent, averaged over training."
    )
    return Table("Accuracy of the chosen epochs", header, rows, note)


def evaluation_table(groups: Groups) -> Table | None:
    """Returns the columns of Table 2 for evaluated checkpoints; None if there is none."""
    rows = []
    for name, results in groups.items():
        for which in CHOSEN_BY:
            if any(which in result.evaluations for result in results):
                rows.append([f"{name}, {which.replace('_', ' ')}", *columns_of(results, which)])
    if not rows:
        return None
    examples = {r.test_examples for results in groups.values() for r in results if r.test_examples}
    note = f"Accuracy in % on {' or '.join(map(str, sorted(examples)))} test images. {INTERVALS}"
    return Table("The attacks of Table 2", ["run, checkpoint", *COLUMNS.values()], rows, note)


def columns_of(results: Sequence[Result], which: str) -> list[str]:
    """Returns the cells of Table 2's columns for a checkpoint, over the runs that evaluated it."""
    evaluated = [result for result in results if which in result.evaluations]
    cells = []
    for name in COLUMNS:
        columns = [result.evaluations[which].get(name) for result in evaluated]
        shares = [column["accuracy"] if column else None for column in columns]
        value = spread(shares, evaluated[0].test_examples)
        cells.append(cell(value and value.within(0, 1)))
    return cells


def standard_error(test_examples: int) -> str:
    """States the largest standard error of an accuracy on N images, which it has at 50%."""
    points = 100 * math.sqrt(0.25 / test_examples)
    return f"An accuracy on {test_examples:,} test images has a standard error of up to {points:.1f} points"
