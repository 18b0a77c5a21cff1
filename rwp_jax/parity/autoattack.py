"""Compares AutoAttack with recorded runs of the official code, in a directory that has clean.npz."""

import functools
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rwp_jax.attacks.autoattack import autoattack
from rwp_jax.attacks.autoattack.apgd import apgd
from rwp_jax.attacks.autoattack.fab import fab, targeted_boundary
from rwp_jax.attacks.autoattack.margins import dlr, targeted_dlr
from rwp_jax.errors import InputError
from rwp_jax.losses import cross_entropy
from rwp_jax.models.classifier import make_classifier
from rwp_jax.names import spelled
from rwp_jax.parity.agreement import Row, guarded
from rwp_jax.pytorch.state_dict import from_state_dict

EPSILON = {"l_inf": 8 / 255, "l_2": 0.5, "l_1": 12.0}
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
TOLERANCE = 1e-9  # relative error of APGD's best loss, on all images but one
# In L1, ties between gradient entries make an image's path diverge: losses may differ on one image in ten,
# verdicts on one in 32.
TOLERANCE_L1, TIES_L1, VERDICTS_L1 = 1e-6, 10, 32
STAGE_TOLERANCE, FINAL_TOLERANCE = 2, 1  # images, after one attack of the ensemble and after all
SQUARE_TOLERANCE, SQUARE_KEYS = 3, 5  # images, for the mean over this many keys
FAB_TOLERANCE = 1e-6  # relative error of FAB's distance, on nine images of ten


class Recorded(NamedTuple):
    """The network of a directory, in float64 and in float32, and its images, in float64."""

    logits_fn: Callable
    logits_fn_32: Callable
    x: np.ndarray
    y: np.ndarray


def is_autoattack(directory: pathlib.Path) -> bool:
    return (directory / "clean.npz").is_file() and not (directory / "cases.json").exists()


def read_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads an npz file; raises InputError if it cannot be read."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except Exception as error:  # NumPy and zipfile raise many kinds
        raise InputError(f"{path}: cannot be read ({type(error).__name__})") from None


def load_network(directory: pathlib.Path, clean: dict, dtype: str) -> tuple[str, dict, Callable]:
    """Returns the network's name, state dict and logits function; `clean` holds the arrays of clean.npz.

    Raises:
      InputError: if there is not exactly one network, or its file is damaged.
    """
    networks = sorted(directory.glob("wrn-*.npz"))
    if len(networks) != 1:
        raise InputError(f"{directory}: there must be one network wrn-D-W.npz")
    entries, name = read_arrays(networks[0]), networks[0].stem
    classifier = make_classifier(name, clean["logits"].shape[-1], MEAN, STD, dtype=dtype)
    templates = classifier.shapes(clean["x"].shape[1:])

    def entry(name, _):
        if name not in entries:
            raise InputError(f"{networks[0]}: has no entry {name}")
        return entries[name].astype(dtype)

    params, batch_stats = (
        from_state_dict(name, tree, entry, collection)
        for tree, collection in zip(templates, ("params", "batch_stats"), strict=True)
    )
    return name, entries, functools.partial(classifier.eval, params, batch_stats)


def read(directory: pathlib.Path) -> Recorded:
    """Reads network and images; raises InputError if a file is missing or damaged."""
    clean = read_arrays(directory / "clean.npz")
    in_64, in_32 = (load_network(directory, clean, dtype)[2] for dtype in ("float64", "float32"))
    return Recorded(in_64, in_32, clean["x"] / 255, clean["y"])


def _row(
    name: str, what: str, errors, tolerance: float, *, allowed: int, wrong: int, allowed_wrong: int
) -> Row:
    """Builds a row; fails if more images than allowed differ in verdict or exceed the tolerance."""
    count, outside = len(errors), int((~(errors <= tolerance)).sum())
    equal = f"verdicts equal on {count - wrong} of {count}" if wrong else "verdicts equal"
    verdict = f"{equal}, {what} within tolerance on {count - outside} of {count}"
    if wrong > allowed_wrong:
        verdict = f"FAIL: {wrong} of {count} verdicts differ"
    elif outside > allowed:
        verdict = f"FAIL: {what} outside on {outside} of {count} images"
    return Row(name, 2, float(errors.max()), tolerance, verdict)


def _allowed_wrong(norm: str, count: int) -> int:
    return count // VERDICTS_L1 if norm == "l_1" else 0


def _named(pattern: str, name: str) -> tuple[str, ...]:
    match = re.fullmatch(pattern, name)
    if match is None:
        raise InputError("no attack of this name is known")
    return match.groups()


def run_apgd(directory: pathlib.Path, recorded: Recorded, name: str) -> Row:
    """Compares one restart of APGD from the recorded starts: verdicts and best losses."""
    kind, official = _named(r"apgd_(ce|dlr|t\d)_(Linf|L2|L1)", name)
    theirs, norm = read_arrays(directory / f"{name}.npz"), spelled(official)
    start = read_arrays(directory / f"start_{official}.npz")
    index = theirs.get("index", start["index"])
    x, y = jnp.asarray(recorded.x[index]), jnp.asarray(recorded.y[index])
    if kind == "ce":
        loss = lambda logits: cross_entropy(logits, y)
    elif kind == "dlr":
        loss = lambda logits: dlr(logits, y)
    else:
        loss = lambda logits: targeted_dlr(logits, y, jnp.asarray(theirs["y_target"]))
    attack = functools.partial(apgd, recorded.logits_fn, loss, norm=norm, epsilon=EPSILON[norm])
    places = [start["index"].tolist().index(i) for i in index.tolist()]
    ours = jax.device_get(jax.jit(attack)(x, y, start["x_init"][places]))

    errors = np.abs(ours.loss_best - theirs["loss_best"]) / np.abs(theirs["loss_best"])
    wrong = int((ours.robust != theirs["robust"]).sum())
    tolerance, allowed = (TOLERANCE, 1) if norm != "l_1" else (TOLERANCE_L1, len(errors) // TIES_L1)
    allowed_wrong = _allowed_wrong(norm, len(errors))
    return _row(
        name,
        "best loss",
        errors,
        tolerance,
        allowed=allowed,
        wrong=wrong,
        allowed_wrong=allowed_wrong,
    )


def run_fab(directory: pathlib.Path, recorded: Recorded, name: str) -> Row:
    """Compares one restart of targeted FAB: verdicts and distances."""
    rank, official = _named(r"fab_t(\d)_(Linf|L2|L1)", name)
    theirs, norm = read_arrays(directory / f"{name}.npz"), spelled(official)
    index = theirs["index"]
    x, y = jnp.asarray(recorded.x[index]), jnp.asarray(recorded.y[index])

    @jax.jit
    def attack(x, y):
        targets = jnp.argsort(recorded.logits_fn(x), -1)[:, -int(rank)]
        boundary = targeted_boundary(recorded.logits_fn, y, targets)
        return fab(recorded.logits_fn, boundary, x, y, norm=norm).distance

    ours = jax.device_get(attack(x, y))
    fooled = np.isfinite(ours)
    errors = np.abs(np.where(fooled, ours, 0) - theirs["distance"])
    errors /= np.where(theirs["distance"] > 0, theirs["distance"], 1)
    wrong = int((fooled != theirs["fooled"]).sum())
    return _row(
        name,
        "distance",
        errors,
        FAB_TOLERANCE,
        allowed=len(errors) // 10,
        wrong=wrong,
        allowed_wrong=_allowed_wrong(norm, len(errors)),
    )


def _count_row(name: str, ours: list[float], theirs: list[float], tolerances: list[float]) -> Row:
    """Compares counts of robust images; the error is a number of images."""
    errors = np.abs(np.subtract(ours, theirs))
    listed = lambda counts: ", ".join(f"{count:g}" for count in counts)
    verdict = f"robust {listed(ours)}; official {listed(theirs)}"
    if (errors > tolerances).any():
        verdict = f"FAIL: {verdict}"
    return Row(name, len(ours), float(errors.max()), max(tolerances), verdict)


def run_standard(directory: pathlib.Path, recorded: Recorded, name: str) -> Row:
    """Compares the standard version by counts after each attack, since its random draws differ."""
    (official,) = _named(r"standard_(Linf|L2|L1)", name)
    theirs, norm = read_arrays(directory / f"{name}.npz"), spelled(official)
    x, y, order = recorded.x, recorded.y, ("apgd_ce", "apgd_t", "fab_t", "square")
    result = autoattack(recorded.logits_fn_32, x, y, norm, EPSILON[norm])
    ours = [int(result.robust_after[attack.replace("_", "-")].sum()) for attack in order]
    counts = [int(theirs[attack].sum()) for attack in order]
    return _count_row(name, ours, counts, [STAGE_TOLERANCE] * 3 + [FINAL_TOLERANCE])


def run_alone(directory: pathlib.Path, recorded: Recorded, name: str) -> Row:
    """Compares one attack alone on every correctly classified image: the mean count over keys."""
    official, attack = _named(r"alone_(Linf|L2|L1)_(\w+)", name)
    theirs, norm = read_arrays(directory / f"{name}.npz"), spelled(official)
    x, y = recorded.x[theirs["index"]], recorded.y[theirs["index"]]
    expected = np.mean(theirs.get("robust_counts", theirs["robust"].sum()))
    # FAB-T starts at the clean images, so every key gives the same result.
    keys = range(SQUARE_KEYS if attack == "square" else 1)
    chosen = {"version": "custom", "attacks": attack.replace("_", "-")}
    run = lambda key: autoattack(
        recorded.logits_fn_32, x, y, norm, EPSILON[norm], key=key, **chosen
    )
    count = np.mean([run(key).robust.sum() for key in keys])
    tolerance = SQUARE_TOLERANCE if attack == "square" else FINAL_TOLERANCE
    return _count_row(name, [round(count, 2)], [round(expected, 2)], [tolerance])


RUNNERS = {"apgd": run_apgd, "fab": run_fab, "standard": run_standard, "alone": run_alone}


def rows(directory: pathlib.Path, names: list[str]) -> Iterator[Row]:
    """Yields the result of each recorded attack."""
    recorded = read(directory)
    for name in names:
        run = RUNNERS[name.partition("_")[0]]
        yield guarded(name, TOLERANCE, functools.partial(run, directory, recorded, name))


def attack_names(directory: pathlib.Path) -> list[str]:
    """Lists the recorded attacks of a directory."""
    kinds = ("apgd_*.npz", "fab_*.npz", "standard_*.npz", "alone_*.npz")
    return [path.stem for kind in kinds for path in sorted(directory.glob(kind))]
