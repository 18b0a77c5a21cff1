"""Accuracy on corrupted images, CIFAR-10-C and CIFAR-100-C (Hendrycks and Dietterich, 2019)."""

import pathlib
from typing import Any

import numpy as np

from rwp_jax.errors import InputError, first_line
from rwp_jax.evaluation.record import share
from rwp_jax.evaluation.subject import checkpoint_folder, path_name
from rwp_jax.files import write_json
from rwp_jax.runs.finished_run import FinishedRun
from rwp_jax.runs.layout import EVALUATION, from_1, lock
from rwp_jax.runs.loaded import load_run
from rwp_jax.version import described

SEVERITIES = 5
# The 15 corruptions that papers average over; four more are published with them.
BENCHMARK = (
    "brightness",
    "contrast",
    "defocus_blur",
    "elastic_transform",
    "fog",
    "frost",
    "gaussian_noise",
    "glass_blur",
    "impulse_noise",
    "jpeg_compression",
    "motion_blur",
    "pixelate",
    "shot_noise",
    "snow",
    "zoom_blur",
)
_LABELS = "labels"


def _array(file: pathlib.Path) -> np.ndarray:
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise ValueError("it is an .npz")
        return array
    except Exception as error:  # NumPy raises many kinds for damaged files
        raise InputError(
            f"corruptions={file.parent}: {file.name} cannot be read as .npy ({first_line(error)})"
        ) from None


def read_corruptions(folder: pathlib.Path) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Opens a directory of corrupted images in the published format.

    Args:
      folder: directory with NAME.npy for each corruption, uint8 [5 N, H, W, C] in blocks of N by
        severity, and labels.npy, integers [5 N].

    Returns:
      Name -> memory-mapped images, sorted by name; and labels int32 [5 N].

    Raises:
      InputError: if files are missing, cannot be read or do not match one another.
    """
    if not folder.is_dir():
        raise InputError(
            f"corruptions={folder} is not a directory with labels.npy and NAME.npy files"
        )
    arrays = {file.stem: _array(file) for file in sorted(folder.glob("*.npy"))}
    labels = arrays.pop(_LABELS, None)
    if labels is None or not arrays:
        lacks = f"{_LABELS}.npy" if labels is None else "NAME.npy of a corruption"
        raise InputError(f"corruptions={folder}: there is no {lacks}")
    kind = labels.dtype.kind
    if labels.ndim != 1 or kind not in "iu" or not labels.size or labels.size % SEVERITIES:
        raise InputError(
            f"corruptions={folder}: labels.npy is {labels.dtype} {labels.shape}, must be integers "
            f"[{SEVERITIES} N], N for each severity"
        )
    for name, images in arrays.items():
        if images.dtype != np.uint8 or images.ndim != 4 or len(images) != len(labels):
            raise InputError(
                f"corruptions={folder}: {name}.npy is {images.dtype} {images.shape}, must be uint8 "
                f"[{len(labels)}, H, W, C], one for each label of labels.npy"
            )
    if labels.min() < 0 or labels.max() >= 2**31:
        raise InputError(
            f"corruptions={folder}: labels.npy has labels in [{labels.min()}, {labels.max()}], must have "
            "classes counted from 0"
        )
    return arrays, np.asarray(labels, np.int32)


def _check(run: FinishedRun, folder: pathlib.Path, arrays, labels, examples: int) -> None:
    """Raises InputError if the network cannot take the images or there are too few of them."""
    for name, images in arrays.items():
        shape = images.shape[1:]
        if not run.takes(shape):
            raise InputError(
                f"corruptions={folder}: {name}.npy has images {'x'.join(map(str, shape))}, the network "
                f"takes {run.sizes()}"
            )
    if labels.max() >= run.num_classes:
        raise InputError(
            f"corruptions={folder}: labels.npy has labels up to {labels.max()}, the network has "
            f"{run.num_classes} classes"
        )
    if not 0 <= examples <= len(labels) // SEVERITIES:
        raise InputError(
            f"examples={examples} must be in [0, {len(labels) // SEVERITIES}], the number of images of a "
            "severity"
        )


def accuracies(run: FinishedRun, arrays, labels: np.ndarray, examples: int = 0) -> dict[str, list]:
    """Computes the accuracy for each corruption and severity.

    Args:
      run: run whose network is evaluated.
      arrays: images, from `read_corruptions`.
      labels: labels, from `read_corruptions`.
      examples: number of images of each severity, from the first; 0 for all.

    Returns:
      Name -> an entry for each severity, from 1, see `record.share`.
    """
    block = len(labels) // SEVERITIES
    count = examples or block
    found: dict[str, list] = {}
    for name, images in arrays.items():
        for begin in range(0, len(labels), block):
            part = slice(begin, begin + count)
            logits = run.predict(np.asarray(images[part]))
            correct = (logits.argmax(-1) == labels[part]) & np.isfinite(logits).all(-1)
            found.setdefault(name, []).append(share(correct))
    return found


def table(found: dict[str, list]) -> str:
    """Formats accuracies in %, with a line per corruption and a column per severity, means last."""
    values = {name: [entry["accuracy"] for entry in row] for name, row in found.items()}
    rows = values | {
        name: list(np.mean([values[one] for one in group], 0))
        for name, group in means(found).items()
    }
    width = max(map(len, [*rows, "accuracy in %"]))
    header = [f"severity {severity}" for severity in range(1, SEVERITIES + 1)]
    lines = ["  ".join(["accuracy in %".ljust(width), *header, "      mean"])]
    for name, row in rows.items():
        cells = [f"{100 * value:10.2f}" for value in [*row, np.mean(row)]]
        lines.append("  ".join([name.ljust(width), *cells]))
    return "\n".join(lines)


def means(found: dict[str, list]) -> dict[str, list[str]]:
    """Name of each mean -> its corruptions: all, and the benchmark's 15 if there are others too."""
    groups = {f"mean of {len(found)}": list(found)}
    if set(BENCHMARK) < set(found):
        groups[f"mean of the benchmark's {len(BENCHMARK)}"] = list(BENCHMARK)
    return groups


def evaluate_corruptions(
    directory: pathlib.Path, which: str, folder: pathlib.Path, examples: int
) -> dict[str, Any]:
    """Prints the accuracy of a run's network on corrupted images, by corruption and severity.

    Args:
      directory: directory of the run; corruptions_NAME.json is written to `evaluation/WHICH` in it, to
        `evaluation/WHICH_N` for N examples.
      which: checkpoint, such as `best`.
      folder: directory of the corrupted images, see `read_corruptions`.
      examples: number of images of each severity, from the first; 0 for all.

    Returns:
      The content of the file.

    Raises:
      InputError: if the images or arguments do not fit the run, before anything is computed.
    """
    arrays, labels = read_corruptions(folder)
    run = load_run(directory, which)
    _check(run, folder, arrays, labels, examples)
    output = directory / EVALUATION / checkpoint_folder(which, examples)
    path = output / f"corruptions_{path_name(str(folder))}.json"
    with lock(output):
        print(
            f"{directory}, {which} checkpoint (epoch {run.epoch + 1}), {folder}, "
            f"{examples or len(labels) // SEVERITIES} images of each corruption and severity",
            flush=True,
        )
        found = accuracies(run, arrays, labels, examples)
        accuracy = lambda names: float(np.mean([e["accuracy"] for n in names for e in found[n]]))
        summary = {
            "rwp_jax": described(),
            **from_1(run.epoch),
            "corruptions": str(folder),
            "mean_accuracy": {name: accuracy(group) for name, group in means(found).items()},
            "severities": found,
        }
        write_json(path, summary)
    print(table(found))
    print(f"wrote {path}")
    return summary
