"""The six columns of the paper's Table 2 for the network of a run: `main.py --mode evaluate`."""

import functools
import pathlib
import sys
import warnings
from collections.abc import Callable

import jax
import numpy as np
from tqdm import tqdm

from rwp_jax.attacks.autoattack import AutoAttackWarning, autoattack
from rwp_jax.attacks.autoattack.margins import misclassified
from rwp_jax.attacks.autoattack.state import read_state
from rwp_jax.attacks.threat_model import make_threat_model
from rwp_jax.distributed.devices import filling_batch, over_examples
from rwp_jax.errors import InputError, named_in
from rwp_jax.evaluation.accuracy import FixedAttack, attack_images
from rwp_jax.evaluation.intervals import wilson
from rwp_jax.evaluation.store import UNKNOWN, Subject, Verdicts, load_subject
from rwp_jax.files import write_json
from rwp_jax.losses import carlini_wagner
from rwp_jax.models.precision import matmul_precision
from rwp_jax.runs.layout import COLUMNS, EVALUATION, EVALUATION_JSON, EVALUATION_NPZ, lock
from rwp_jax.version import __version__

AUTOATTACK_NORMS = {"l_inf": "Linf", "l_2": "L2"}  # names of a config, and of AutoAttack's users
SAVE_SECONDS = 10  # between two saves of the fixed attacks' verdicts
WARNINGS = "autoattack_warnings"


def parse_attacks(text: str) -> list[str]:
    """The columns that `text` names, comma-separated, in the table's order; raises InputError."""
    wanted = [name.strip() for name in text.split(",")]
    for name in wanted:
        if name not in COLUMNS:
            raise InputError(f"attacks=: {name!r} must be one of {', '.join(COLUMNS)}")
    return [name for name in COLUMNS if name in wanted]


def fixed_attacks(epsilon: float, step_size: float) -> dict[str, FixedAttack]:
    """As the authors' evaluation script has them; FGSM is one step of 2 epsilon."""
    return {
        "fgsm": FixedAttack(1, 2 * epsilon),
        "pgd20": FixedAttack(20, step_size),
        "pgd100": FixedAttack(100, step_size),
        "cw": FixedAttack(100, step_size, carlini_wagner),
    }


def _bar(name: str, total) -> tqdm:
    layout = "{desc:<10} {percentage:3.0f}%{postfix} |{bar:20}| [{elapsed}<{remaining}]"
    return tqdm(total=total, desc=COLUMNS[name], bar_format=layout, disable=not sys.stderr.isatty())


def make_attack(subject: Subject, attack: FixedAttack | None, batch_size: int) -> Callable:
    """(indices [batch_size]) -> (correct [batch_size], attacked images); None: clean images.

    Verdicts are of fresh forwards in full float32.
    """
    run = subject.run
    threat = run.config.threat
    threat_model = make_threat_model(threat.norm, threat.epsilon)

    def judge(params, batch_stats, key, images, labels, indices):
        x = images.astype(jax.tree.leaves(params)[0].dtype) / 255
        if attack:
            network, start = (params, batch_stats), (key, indices)
            with matmul_precision(run.config.evaluation.precision):
                x = attack_images(
                    run.classifier, threat_model, attack, *network, x, labels, *start, batch_size
                )
        with matmul_precision("highest"):
            logits = run.classifier.eval(params, batch_stats, x)
        return ~misclassified(logits, labels), x

    mapped = over_examples(judge, (False,) * 3 + (True,) * 3)
    network = run.params, run.batch_stats, jax.random.key(run.config.seed)

    def call(indices):
        batch = subject.images[indices], subject.labels[indices], indices
        return jax.device_get(mapped(*network, *batch))

    return call


def run_fixed(
    subject: Subject, name: str, attack: FixedAttack | None, verdicts: Verdicts, save_images: bool
) -> None:
    """Fills in the verdicts of one attack that are missing."""
    count = len(subject.labels)
    devices = jax.local_device_count()
    wanted = subject.run.config.evaluation.batch_size or filling_batch(devices=devices)
    batch_size = -(-min(wanted, count) // devices) * devices
    arrays, images = verdicts.arrays, f"x_adv_{name}"
    correct = arrays.setdefault(f"correct_{name}", np.full(count, UNKNOWN, np.int8))
    if save_images and attack and images not in arrays:
        arrays[images] = np.zeros(subject.images.shape, np.float32)
        correct[:] = UNKNOWN  # verdicts and images of the same pass
    missing = np.flatnonzero(correct == UNKNOWN)
    if not len(missing):
        return
    judge = make_attack(subject, attack, batch_size)
    with _bar(name, count) as bar:
        bar.update(count - len(missing))
        for begin in range(0, len(missing), batch_size):
            indices = missing[begin : begin + batch_size]
            padded = np.resize(indices, batch_size).astype(np.int32)
            right, x_adv = judge(padded)
            correct[indices] = right[: len(indices)]
            if images in arrays:
                arrays[images][indices] = np.clip(x_adv[: len(indices)], 0, 1)  # rounding
            verdicts.save(SAVE_SECONDS)
            bar.set_postfix_str(f"{np.mean(correct[correct != UNKNOWN]):.2%} correct so far")
            bar.update(len(indices))
    verdicts.save()


def run_autoattack(
    subject: Subject, verdicts: Verdicts, state_path: pathlib.Path, save_images: bool
) -> None:
    """Runs AutoAttack's standard version."""
    run, arrays = subject.run, verdicts.arrays
    norm = AUTOATTACK_NORMS[run.config.threat.norm]
    params, batch_stats = jax.device_get((run.params, run.batch_stats))
    with _bar("autoattack", 1) as bar:

        def progress(moment):
            bar.n = (moment.index + moment.fraction) / moment.attacks
            share = moment.robust / moment.total
            bar.set_postfix_str(f"{moment.attack}: {share:.2%} robust so far")

        with warnings.catch_warnings():  # printed below the table
            warnings.simplefilter("ignore", AutoAttackWarning)
            result = autoattack(
                functools.partial(run.classifier.eval, params, batch_stats),
                subject.images.astype(np.float32) / 255,
                subject.labels,
                norm,
                run.config.threat.epsilon,
                key=run.config.seed,
                precision=run.config.evaluation.precision,
                state_path=state_path,
                progress=progress,
            )
        bar.n = 1
    arrays["correct_autoattack"] = result.robust.astype(np.int8)
    for name, robust in result.robust_after.items():
        arrays[f"correct_autoattack_{name}"] = robust.astype(np.int8)
    if save_images:
        arrays["x_adv_autoattack"] = result.x_adv
    arrays[WARNINGS] = np.array(result.warnings, dtype=str)
    verdicts.save()


def summarize(subject: Subject, verdicts: Verdicts) -> dict:
    """What evaluation.json holds."""
    run, count = subject.run, len(subject.labels)
    columns = {}
    for name, values in verdicts.arrays.items():
        if name.startswith("correct_") and not (values == UNKNOWN).any():
            right = int(values.sum())
            low, high = wilson(right, count)
            columns[name.removeprefix("correct_")] = {
                "correct": right,
                "accuracy": right / count,
                "interval_95": [low, high],
            }
    return {
        "rwp_jax": __version__,
        "epoch": run.epoch,
        "examples": count,
        "norm": run.config.threat.norm,
        "epsilon": run.config.threat.epsilon,
        "step_size": run.config.evaluation.step_size,
        "columns": columns,
        "warnings": verdicts.arrays.get(WARNINGS, np.array([])).tolist(),
    }


def table(summary: dict) -> str:
    """The columns side by side, as in the paper's Table 2, with their 95% intervals below."""
    shown = [name for name in COLUMNS if name in summary["columns"]]
    rows = [["accuracy in %"], ["95% from"], ["to"]]
    for name in shown:
        column = summary["columns"][name]
        values = [column["accuracy"], *column["interval_95"]]
        for row, value in zip(rows, values, strict=True):
            row.append(f"{100 * value:.2f}")
    header = ["", *(COLUMNS[name] for name in shown)]
    widths = [max(len(cell) for cell in cells) for cells in zip(header, *rows, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
        for cells in (header, *rows)
    )


def evaluate(
    directory: pathlib.Path, which: str, attacks: str, examples: int, save_images: bool
) -> None:
    """Evaluates a run's network and prints its row of Table 2; continues what was interrupted.

    Args:
      directory: of the run; results go to `evaluation/WHICH` in it (`WHICH_N` for N examples).
      which: checkpoint `best` or `last`.
      attacks: names of COLUMNS, comma-separated.
      examples: how many test images, the first ones; 0 for all.
      save_images: whether attacked images are kept in evaluation.npz.

    Raises:
      InputError: for what does not fit, before anything is attacked; for a state of AutoAttack that is
        of another network once its turn comes.
    """
    names = parse_attacks(attacks)
    subject = load_subject(directory, which, examples)
    config = subject.run.config
    with named_in("config.threat", "norm epsilon"):
        make_threat_model(config.threat.norm, config.threat.epsilon)
    if names != ["natural"] and not config.threat.epsilon > 0:
        raise InputError(
            f"workdir={directory}: its config.threat.epsilon={config.threat.epsilon} leaves nothing to "
            "attack; only attacks=natural is possible"
        )
    output = directory / EVALUATION / (f"{which}_{examples}" if examples else which)
    with lock(output):
        _evaluate(subject, names, which, directory, output, save_images)


def _evaluate(subject: Subject, names, which: str, directory, output, save_images: bool) -> None:
    """Runs what is missing of the columns `names`, and prints the table."""
    config, verdicts = subject.run.config, Verdicts(output / EVALUATION_NPZ, subject)
    print(
        f"{directory}, {which} checkpoint (epoch {subject.run.epoch + 1}), {len(subject.labels)} test "
        f"images, {config.threat.norm}, epsilon {config.threat.epsilon:.6g}",
        flush=True,
    )
    state_path = output / "autoattack_state.npz"
    if "autoattack" in names and state_path.exists():
        read_state(state_path)  # damage is found before hours of other attacks
    fixed = fixed_attacks(config.threat.epsilon, config.evaluation.step_size)
    for name in names:
        if name == "autoattack":
            run_autoattack(subject, verdicts, state_path, save_images)
        else:
            run_fixed(subject, name, fixed.get(name), verdicts, save_images)
    summary = summarize(subject, verdicts)
    write_json(output / EVALUATION_JSON, summary)
    print(table(summary))
    for line in summary["warnings"]:
        print(f"warning: {line}")
    print(f"wrote {output / EVALUATION_JSON} and {output / EVALUATION_NPZ}")
