"""`main.py --mode evaluate`: the columns of the paper's Table 2 for the network of a run."""

import pathlib
from typing import Any

import numpy as np

from rwp_jax.attacks.autoattack.state import read_state
from rwp_jax.errors import InputError
from rwp_jax.evaluation.columns import (
    WARNINGS,
    heading,
    in_order,
    is_column,
    parse_attacks,
    run_autoattack,
    run_fixed,
)
from rwp_jax.evaluation.record import share
from rwp_jax.evaluation.store import UNKNOWN, Verdicts
from rwp_jax.evaluation.subject import AS_TRAINED, Changes, Subject, load_subjects
from rwp_jax.files import write_json
from rwp_jax.runs.layout import (
    BENCHMARK_JSON,
    EVALUATION,
    EVALUATION_JSON,
    EVALUATION_NPZ,
    from_1,
    lock,
)
from rwp_jax.version import described


def summarize(subject: Subject, verdicts: Verdicts) -> dict:
    """Returns the content of evaluation.json."""
    run, count = subject.run, len(subject.labels)
    columns = {}
    for name, values in verdicts.arrays.items():
        if name.startswith("correct_") and not (values == UNKNOWN).any():
            column = share(values)
            del column["images"]
            columns[name.removeprefix("correct_")] = column
    return {
        "rwp_jax": described(),
        **from_1(run.epoch),
        "examples": count,
        "data": subject.data,
        "split": subject.split,
        "norm": subject.norm,
        "epsilon": subject.epsilon,
        "step_size": subject.step_size,
        "columns": columns,
        "warnings": verdicts.arrays.get(WARNINGS, np.array([])).tolist(),
    }


def table(summary: dict) -> str:
    """Formats the columns side by side, as in the paper's Table 2, with their 95% intervals below."""
    shown = in_order(filter(is_column, summary["columns"]))
    rows = [["accuracy in %"], ["95% from"], ["to"]]
    for name in shown:
        column = summary["columns"][name]
        values = [column["accuracy"], *column["interval_95"]]
        for row, value in zip(rows, values, strict=True):
            row.append(f"{100 * value:.2f}")
    header = ["", *map(heading, shown)]
    widths = [max(len(cell) for cell in cells) for cells in zip(header, *rows, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
        for cells in (header, *rows)
    )


def evaluate(
    directory: pathlib.Path,
    which: str,
    attacks: str,
    examples: int,
    save_images: bool,
    changes: Changes = AS_TRAINED,
) -> list[dict[str, Any]]:
    """Evaluates a run's network and prints its row of Table 2; continues an interrupted evaluation.

    Args:
      directory: directory of the run; results are written to `evaluation/WHICH` in it (`WHICH_N` for N
        examples, followed by the changes).
      which: checkpoint, such as `best` or `last`.
      attacks: names of columns, comma-separated, see `columns.parse_attacks`.
      examples: number of images, from the first; 0 for all.
      save_images: whether to keep the attacked images in evaluation.npz.
      changes: differences from the run's config. Each radius has its own directory.

    Returns:
      The content of evaluation.json for each radius, in ascending order.

    Raises:
      InputError: if the arguments or files do not fit the run, before any attack starts; if a saved state
        of AutoAttack belongs to another network, when AutoAttack starts.
    """
    names = parse_attacks(attacks)
    if changes.step_size is not None and set(names) <= {"natural", "fgsm", "autoattack"}:
        raise InputError(
            f"step_size={changes.step_size:g} is for PGD and C&W, none of them is in attacks={attacks}"
        )
    subjects = load_subjects(directory, which, examples, changes)
    if len(subjects) > 1:  # a sweep begins with natural accuracy, at radius 0
        if names == ["natural"]:
            raise InputError(
                "attacks=natural has no radius: several values of epsilon= need an attack"
            )
        names = in_order(["natural", *names])
        subjects = [subject for subject in subjects if subject.epsilon > 0]
    norm = subjects[0].norm
    if names != ["natural"] and not subjects[0].epsilon > 0:
        raise InputError(
            f"workdir={directory}: a radius of {subjects[0].epsilon:g} leaves nothing to attack; only "
            "attacks=natural is possible"
        )
    if norm == "l_1" and not set(names) <= {"natural", "autoattack"}:
        raise InputError(
            f"norm={norm} is only for attacks=natural,autoattack; must be l_inf or l_2 for "
            f"{names[0] if names[0] != 'natural' else names[1]}"
        )
    outputs = [directory / EVALUATION / subject.folder for subject in subjects]
    for subject, output in zip(subjects, outputs, strict=True):
        _open(subject, names, output)  # finds damaged files before hours of attacks
    summaries = []
    for subject, output in zip(subjects, outputs, strict=True):
        with lock(output):
            summaries.append(_evaluate(subject, names, which, directory, output, save_images))
    return summaries


def _open(subject: Subject, names, output: pathlib.Path) -> tuple[Verdicts, pathlib.Path]:
    """Opens verdicts and AutoAttack's state; raises InputError if damaged or of another evaluation."""
    verdicts, state_path = (
        Verdicts(output / EVALUATION_NPZ, subject),
        output / "autoattack_state.npz",
    )
    if "autoattack" in names and state_path.exists():
        read_state(state_path)
    return verdicts, state_path


def _evaluate(
    subject: Subject, names, which: str, directory, output, save_images: bool
) -> dict[str, Any]:
    """Computes the missing parts of the columns `names` and prints the table."""
    verdicts, state_path = _open(subject, names, output)
    print(
        f"{directory}, {which} checkpoint (epoch {subject.run.epoch + 1}), {len(subject.labels)} "
        f"{subject.split} images, {subject.norm}, epsilon {subject.epsilon:.6g}",
        flush=True,
    )
    written = [output / EVALUATION_JSON, output / EVALUATION_NPZ]
    for name in names:
        if name == "autoattack":
            record = run_autoattack(subject, verdicts, state_path, save_images)
            written.append(output / BENCHMARK_JSON)
            write_json(written[-1], record)
        else:
            run_fixed(subject, name, verdicts, save_images)
    summary = summarize(subject, verdicts)
    write_json(output / EVALUATION_JSON, summary)
    print(table(summary))
    for line in summary["warnings"]:
        print(f"warning: {line}")
    print(f"wrote {', '.join(map(str, written[:-1]))} and {written[-1]}")
    return summary
