"""The attacks behind the columns of Table 2; each attacks only the images without a verdict."""

import functools
import pathlib
import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from rwp_jax.attacks.autoattack import AutoAttackWarning, autoattack
from rwp_jax.attacks.autoattack.margins import misclassified
from rwp_jax.attacks.threat_model import ball
from rwp_jax.distributed.devices import filling_batch, over_examples
from rwp_jax.errors import InputError
from rwp_jax.evaluation.accuracy import (
    STEPPED,
    FixedAttack,
    Sizes,
    attack_images,
    start_key,
    stepped_attack,
)
from rwp_jax.evaluation.progress import shown
from rwp_jax.evaluation.record import record_of
from rwp_jax.evaluation.store import UNKNOWN, Verdicts
from rwp_jax.evaluation.subject import Subject
from rwp_jax.models.classifier import Classifier
from rwp_jax.models.precision import matmul_precision
from rwp_jax.names import norm_name
from rwp_jax.runs.layout import COLUMNS

SAVE_SECONDS = 10  # least interval between saves of the fixed attacks' verdicts
WARNINGS = "autoattack_warnings"
_CW_STEPS = 100  # in the column `cw`


def parse_attacks(text: str) -> list[str]:
    """Parses comma-separated names of columns and returns them in the table's order.

    PGD and C&W with numbers of steps other than the paper's are named like `pgd50` and `cw20`.

    Raises:
      InputError: if a name is unknown.
    """
    wanted = [name.strip() for name in text.split(",")]
    wanted = ["cw" if name == f"cw{_CW_STEPS}" else name for name in wanted]
    for name in wanted:
        if name not in COLUMNS and not STEPPED.fullmatch(name):
            raise InputError(
                f"attacks=: {name!r} must be one of {', '.join(COLUMNS)}, or pgdN or cwN for N steps"
            )
    return in_order(wanted)


def default_attacks(norm: str) -> str:
    """Returns all columns available for a norm, in any spelling, comma-separated."""
    l_1 = norm_name("norm", norm) == "l_1"
    return "natural,autoattack" if l_1 else ",".join(COLUMNS)


def in_order(names) -> list[str]:
    """Sorts names of columns as in the table: PGD before C&W, each by its number of steps."""
    kinds = ["natural", "fgsm", "pgd", "cw", "autoattack"]

    def place(name: str) -> tuple[int, int]:
        stepped = STEPPED.fullmatch(name)
        kind, steps = stepped.groups() if stepped else (name, _CW_STEPS)
        return kinds.index(kind), int(steps)

    return sorted(set(names), key=place)


def is_column(name: str) -> bool:
    """Checks whether a name is that of a column and not of a part of AutoAttack."""
    return name in COLUMNS or bool(STEPPED.fullmatch(name))


def heading(name: str) -> str:
    """Returns the heading of a column, as in the paper."""
    stepped = STEPPED.fullmatch(name)
    if name in COLUMNS or not stepped:
        return COLUMNS[name]
    return f"{'PGD' if stepped[1] == 'pgd' else 'C&W'}-{stepped[2]}"


def fixed_attack(name: str, sizes: Sizes) -> FixedAttack | None:
    """Returns a column's attack as in the authors' evaluation script, or None for `natural`.

    FGSM is one step of 2 epsilon.
    """
    if name == "natural":
        return None
    if name == "fgsm":
        return FixedAttack(1, 2 * sizes.epsilon)
    return stepped_attack(f"cw{_CW_STEPS}" if name == "cw" else name, sizes.step_size)


@functools.lru_cache(64)  # evaluations at several radii share a column's program
def _program(classifier: Classifier, norm: str, name: str, precision: str, batch_size: int):
    """Returns the compiled program of a column.

    Its signature is (params, batch_stats, key, Sizes, images, labels, indices) -> (correct [B], attacked
    images).
    """

    def judge(params, batch_stats, key, sizes, images, labels, indices):
        dtype = jax.tree.leaves(params)[0].dtype
        x = images.astype(dtype) / 255
        sizes = Sizes(*(size.astype(dtype) for size in sizes))
        attack = fixed_attack(name, sizes)
        if attack:
            network, start = (params, batch_stats), (key, indices)
            with matmul_precision(precision):
                x = attack_images(
                    classifier,
                    ball(norm, sizes.epsilon, "madry"),
                    attack,
                    *network,
                    x,
                    labels,
                    *start,
                    batch_size,
                )
        with matmul_precision("highest"):
            logits = classifier.eval(params, batch_stats, x)
        return ~misclassified(logits, labels), x

    return over_examples(judge, (False,) * 4 + (True,) * 3)


def make_attack(subject: Subject, name: str, batch_size: int) -> Callable:
    """Returns the attack of a column, (indices [batch_size]) -> (correct [batch_size], attacked images).

    Correctness is decided by a separate forward pass at the highest precision.
    """
    run, sizes = subject.run, Sizes(np.float64(subject.epsilon), np.float64(subject.step_size))
    mapped = _program(
        run.classifier, subject.norm, name, run.config.evaluation.precision, batch_size
    )
    fixed = run.params, run.batch_stats, start_key(run.config.seed), sizes

    def call(indices):
        batch = subject.images[indices], subject.labels[indices], indices
        return jax.device_get(mapped(*fixed, *batch))

    return call


def run_fixed(subject: Subject, name: str, verdicts: Verdicts, save_images: bool) -> None:
    """Attacks the images that have no verdict yet in column `name` and saves the verdicts."""
    count = len(subject.labels)
    devices = jax.local_device_count()
    wanted = subject.run.config.evaluation.batch_size or filling_batch(devices=devices)
    batch_size = -(-min(wanted, count) // devices) * devices
    arrays, images = verdicts.arrays, f"x_adv_{name}"
    correct = arrays.setdefault(f"correct_{name}", np.full(count, UNKNOWN, np.int8))
    if save_images and name != "natural" and images not in arrays:
        arrays[images] = np.zeros(subject.images.shape, np.float32)
        correct[:] = UNKNOWN  # so that verdicts and images come from the same pass
    missing = np.flatnonzero(correct == UNKNOWN)
    if not len(missing):
        return
    judge = make_attack(subject, name, batch_size)
    with shown(heading(name)) as show:
        for begin in range(0, len(missing), batch_size):
            indices = missing[begin : begin + batch_size]
            padded = np.resize(indices, batch_size).astype(np.int32)
            right, x_adv = judge(padded)
            correct[indices] = right[: len(indices)]
            if images in arrays:
                # Rounding may leave [0, 1].
                arrays[images][indices] = np.clip(x_adv[: len(indices)], 0, 1)
            verdicts.save(SAVE_SECONDS)
            known = correct[correct != UNKNOWN]
            show(len(known) / count, f"{known.mean():.2%} correct")
    verdicts.save()


def run_autoattack(
    subject: Subject, verdicts: Verdicts, state_path: pathlib.Path, save_images: bool
) -> dict[str, Any]:
    """Runs the standard version of AutoAttack and returns its record."""
    run, arrays = subject.run, verdicts.arrays
    norm = subject.norm
    x = subject.images.astype(np.float32) / 255
    params, batch_stats = jax.device_get((run.params, run.batch_stats))
    with shown(heading("autoattack")) as show:

        def progress(moment):
            done = (moment.index + moment.fraction) / moment.attacks
            # The last progress report comes before the end: verdicts follow.
            show(min(done, 0.99), f"{moment.robust / moment.total:.2%} robust, at {moment.attack}")

        with warnings.catch_warnings():  # they are printed below the table
            warnings.simplefilter("ignore", AutoAttackWarning)
            result = autoattack(
                functools.partial(run.classifier.eval, params, batch_stats),
                x,
                subject.labels,
                norm,
                subject.epsilon,
                key=run.config.seed,
                precision=run.config.evaluation.precision,
                state_path=state_path,
                progress=progress,
            )
        show(1, f"{result.robust.mean():.2%} robust")
    arrays["correct_autoattack"] = result.robust.astype(np.int8)
    for name, robust in result.robust_after.items():
        arrays[f"correct_autoattack_{name}"] = robust.astype(np.int8)
    if save_images:
        arrays["x_adv_autoattack"] = result.x_adv
    arrays[WARNINGS] = np.array(result.warnings, dtype=str)
    verdicts.save()
    return record_of(
        result,
        x,
        subject.labels,
        norm,
        subject.epsilon,
        name=str(state_path.parent),
        dataset=pathlib.Path(subject.data).stem,
        split=subject.split,
        architecture=run.architecture(),
        arguments={"key": run.config.seed, "precision": run.config.evaluation.precision},
    )
