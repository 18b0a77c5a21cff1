"""`main.py --mode explain`: pictures that explain a run's result."""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from rwp_jax.errors import InputError, renamed
from rwp_jax.explain.landscape import landscape, trained_gamma
from rwp_jax.explain.probe import Probe, gate_losses, make_probe
from rwp_jax.report import palette
from rwp_jax.report.explained import DIRECTORY, write_pictures
from rwp_jax.report.gate import draw_gate, perturbs
from rwp_jax.report.landscape_plot import Network, draw_landscape, landscape_table
from rwp_jax.report.loss_histogram import draw_losses
from rwp_jax.report.page import PAGE, Picture, Section, write_page
from rwp_jax.report.results import Result, read_result
from rwp_jax.report.table import Table, write_csv
from rwp_jax.report.titles import setting
from rwp_jax.runs import layout
from rwp_jax.runs.config import flatten

EXAMPLES = 256  # default number of training images


def explain(
    directory: pathlib.Path,
    others: Sequence[pathlib.Path],
    which: str,
    examples: int,
    paths: Mapping[str, str] | None = None,
) -> None:
    """Draws a run's losses, its gate over training, and its weight-loss landscape with those of other runs.

    Args:
      directory: the run's directory; pictures, report.html and CSV files go to its `explain/WHICH`.
      others: directories of runs whose landscapes are drawn in the same picture.
      which: checkpoint of all these runs, see `resume_point.WHICH`.
      examples: number of training images, a fixed choice; 0 for 256.

    Raises:
      InputError: if a directory holds no run, a run lacks the checkpoint or the metrics, or the runs
        differ in classes or threat model. Raised before anything is attacked.
    """
    if examples < 0:
        raise InputError(f"examples={examples} must be at least 1, or 0 for {EXAMPLES}")
    directories = [directory, *others]
    names = _names(directories)
    results, probes = [], []
    for path in directories:
        with renamed("workdir", "workdir" if path is directory else "workdirs"):
            results.append(read_result(path))
            probes.append(make_probe(path, which, examples or EXAMPLES, paths))
    _check_alike(directories, probes)
    output = directory / DIRECTORY / which
    with layout.lock(output):
        _explain(names, results, probes, which, output)


def _explain(names, results: list[Result], probes: list[Probe], which: str, output) -> None:
    probe, result = probes[0], results[0]
    title = f"{names[0]}, {_checkpoint(which, probes[:1])}"
    perturbation = probe.config.weight_perturbation
    pictures, remarks = [], []

    print(f"losses of {names[0]}", flush=True)
    losses = gate_losses(probe)
    path, c_min = output / "losses.png", perturbation.c_min
    words = f"{setting(results[:1])}\n{len(losses):,} training images"
    caption = draw_losses(losses, c_min, palette.method(probe.config), title, words, path)
    pictures.append(Picture(path, caption))
    rows = [[str(i), f"{loss:.6g}"] for i, loss in enumerate(losses)]
    write_csv(Table("", ["example", "loss"], rows), output / "losses.csv")

    if perturbs(result):
        path = output / "gate.png"
        caption = draw_gate({names[0]: [result]}, "The gate in training", path)
        pictures.append(Picture(path, caption))
    else:
        remarks.append(f"{names[0]} perturbs no weights: there is no gate to draw.")

    slices = {}
    for name, each in zip(names, probes, strict=True):
        slices[name] = landscape(each, lambda what, name=name: print(f"{name}: {what}", flush=True))
        if "rwp" not in slices[name]:
            remarks.append(f"{name}: no loss is below c_min, so RWP has no direction.")
    path = output / "landscape.png"
    looks = palette.looks(each.config for each in probes)
    drawn = {
        name: Network(slices[name], look, trained_gamma(each))
        for name, look, each in zip(names, looks, probes, strict=True)
    }
    words = f"{setting(results)}\n{len(losses):,} training images, {_checkpoint(which, probes)}"
    caption = draw_landscape(drawn, probe.num_classes, "Weight-loss landscape", words, path)
    pictures.append(Picture(path, caption))
    write_csv(landscape_table(slices), output / "landscape.csv")

    share = np.mean(losses < c_min)
    introduction = [
        f"{title}: on {len(losses):,} training images {share:.1%} of the adversarial losses are below "
        f"c_min = {c_min:g}; their mean is {losses.mean():.3f}.",
        *remarks,
    ]
    write_pictures(output, pictures)
    write_page(output / PAGE, title, introduction, [Section(title, pictures)])
    print(*introduction, f"wrote {output / PAGE}", sep="\n")


def _checkpoint(which: str, probes: Sequence[Probe]) -> str:
    """Describes the checkpoint of the probes and its epochs."""
    epochs = sorted({probe.epoch + 1 for probe in probes})
    of = f"epoch{'s' * (len(epochs) > 1)} {', '.join(map(str, epochs))}"
    return f"{which.replace('_', ' ')} ({of})"


def _names(directories: Sequence[pathlib.Path]) -> list[str]:
    """Returns the runs' names, or their paths if names are equal; InputError if a run is given twice."""
    resolved = [path.resolve() for path in directories]
    for path, where in zip(directories, resolved, strict=True):
        if resolved.count(where) > 1:
            raise InputError(f"workdirs=: {path} is given twice")
    names = [where.name for where in resolved]
    return [
        name if names.count(name) == 1 else str(path)
        for name, path in zip(names, directories, strict=True)
    ]


# Keys that must agree for two runs' losses to be comparable; `data.data_dir` is only a location.
_ALIKE = (
    *(f"data.{key}" for key in ("name", "path", "train_examples", "labeled_examples")),
    *("threat.norm", "threat.epsilon", "attack.variant", "attack.steps", "attack.step_size"),
    *("objective.name", "objective.beta"),
)


def _check_alike(directories: Sequence[pathlib.Path], probes: Sequence[Probe]) -> None:
    """Raises InputError if the losses of two runs are not comparable."""
    first = flatten(probes[0].config.to_dict())
    for path, probe in zip(directories[1:], probes[1:], strict=True):
        other = flatten(probe.config.to_dict())
        for key in _ALIKE:
            if first.get(key) != other.get(key):
                raise InputError(
                    f"workdirs=: {path} has config.{key}={other.get(key)!r}, {directories[0]} has "
                    f"{first.get(key)!r}: their losses cannot be compared"
                )
        if probe.num_classes != probes[0].num_classes:
            raise InputError(
                f"workdirs=: {path} has {probe.num_classes} classes, {directories[0]} has "
                f"{probes[0].num_classes}: their losses cannot be compared"
            )
