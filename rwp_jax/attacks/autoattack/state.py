"""The state of an evaluation, and the file from which the evaluation resumes."""

import json
import pathlib
import time
from collections.abc import Callable

import numpy as np

from rwp_jax.errors import InputError
from rwp_jax.files import sha256, write_npz

SAVE_SECONDS = 60  # shortest time between two saves during an attack
SNAPSHOT = "snapshot_"
# Relative tolerance for clean logits: rounding on other hardware is well below, another network above.
SAME_LOGITS = 1e-3


def identity(x: np.ndarray, y: np.ndarray, settings: dict) -> str:
    """JSON of images, labels and settings, which must be equal for a state to be resumed."""
    content = {"images": sha256(x), "labels": sha256(y), "shape": list(x.shape), **settings}
    return json.dumps(content, sort_keys=True)


class Record:
    """Verdicts and adversarial images, saved to a file and loaded from it if a path is given.

    Attributes:
      x_adv: [N, H, W, C] adversarial images where an attack succeeded, clean images elsewhere.
      broken: [N] bool, whether an image is misclassified, clean or attacked, or given up.
      robust_after: [N] bool, whether an image is not broken after each finished attack, `clean` first.
      seconds: duration of each attack, finished or not.
      zero_gradients: for each attack, number of searches that began with a zero gradient.
      not_finite: for each attack, images given up because logits, losses or gradients were non-finite.
      verdict_calls: number of calls of the verdicts' forward pass; a resumed evaluation counts from it, so
        that random draws do not repeat.
      done: [N, searches] bool, which searches of the current attack are over; None between attacks.
      snapshot: state of the searches that were running when the file was written.
    """

    def __init__(self, path: pathlib.Path | None, identity: str, x, y, logits: np.ndarray):
        """Starts from the clean logits [N, classes], or resumes from the file if it exists.

        Raises:
          InputError: if the file is not a state, or its images, settings or network differ.
        """
        self.path, self.identity, self.logits = path, identity, logits
        self.x_adv = x.copy()
        self.broken = (logits.argmax(-1) != y) | ~np.isfinite(logits).all(-1)
        self.robust_after = {"clean": ~self.broken}
        self.seconds: dict[str, float] = {}
        self.zero_gradients: dict[str, int] = {}
        self.not_finite: dict[str, list[int]] = {}
        self.verdict_calls = 0
        self.done: np.ndarray | None = None
        self.snapshot: dict[str, np.ndarray] = {}
        self.saved = time.monotonic()
        if path and path.exists():
            self._load(path)

    def give_up(self, attack: str, images: np.ndarray) -> None:
        """Counts images as not robust that have non-finite logits, losses or gradients under an attack."""
        self.broken[images] = True
        if len(images):
            known = self.not_finite.get(attack, [])
            self.not_finite[attack] = sorted({*known, *images.tolist()})

    def finish(self, attack: str) -> None:
        """Records the result of a finished attack and saves."""
        self.robust_after[attack] = ~self.broken
        self.done, self.snapshot = None, {}
        self.save(dict)

    def save_sometimes(self, snapshot: Callable[[], dict]) -> None:
        """Saves if the last save is over SAVE_SECONDS ago; the function returns the snapshot to save."""
        if time.monotonic() - self.saved > SAVE_SECONDS:
            self.save(snapshot)

    def save(self, snapshot: Callable[[], dict]) -> None:
        if self.path is None:
            return
        changed = self.broken & self.robust_after["clean"]
        names = ("seconds", "zero_gradients", "not_finite", "verdict_calls")
        figures = {name: getattr(self, name) for name in names}
        arrays = {
            "identity": np.array(self.identity),
            "logits": self.logits,
            "broken": self.broken,
            "changed": changed,
            "x_adv": self.x_adv[changed],
            "attacks": np.array(list(self.robust_after)),
            "robust_after": np.array(list(self.robust_after.values())),
            "figures": np.array(json.dumps(figures)),
        }
        if self.done is not None:
            arrays["done"] = self.done
        write_npz(self.path, arrays | {SNAPSHOT + k: v for k, v in snapshot().items()})
        self.saved = time.monotonic()

    def _load(self, path: pathlib.Path) -> None:
        arrays, held, figures = read_state(path)
        _check_same(path, held, self.identity)
        logits, broken = arrays["logits"], arrays["broken"]
        finite = np.isfinite(self.logits)
        tolerance = SAME_LOGITS * np.abs(self.logits[finite]).max()
        if logits.shape != self.logits.shape or broken.shape != self.broken.shape:
            raise _damaged(path, "shapes")
        same = np.array_equal(np.isfinite(logits), finite)
        if not same or not np.abs(logits[finite] - self.logits[finite]).max() <= tolerance:
            raise InputError(
                f"{path} belongs to another network: its logits of the clean images differ"
            )
        self.logits, self.broken = logits, broken
        self.x_adv[arrays["changed"]] = arrays["x_adv"]
        attacks = arrays["attacks"].tolist()
        self.robust_after = dict(zip(attacks, arrays["robust_after"], strict=True))
        self.seconds, self.zero_gradients = figures["seconds"], figures["zero_gradients"]
        self.not_finite = figures.get("not_finite", {})  # files of older versions lack it
        self.verdict_calls = figures.get("verdict_calls", 0)
        self.done = arrays.get("done")
        names = [name for name in arrays if name.startswith(SNAPSHOT)]
        self.snapshot = {name.removeprefix(SNAPSHOT): arrays[name] for name in names}


def check_state(path: pathlib.Path | None, identity: str) -> None:
    """Raises InputError if an existing file is not a state or its images, settings or network differ."""
    if path and path.exists():
        _check_same(path, read_state(path)[1], identity)


def _check_same(path: pathlib.Path, held: dict, identity: str) -> None:
    mine = json.loads(identity)
    for name in sorted(mine.keys() | held.keys()):
        value = mine.get(name)
        if held.get(name) != value:
            short = len(str(value)) < 64
            values = f" ({held.get(name)} there, {value} here)" if short else ""
            raise InputError(
                f"{path} belongs to another evaluation: different {name}{values}; move it away"
            )


def _damaged(path: pathlib.Path, why: str) -> InputError:
    return InputError(f"state_path={path} is not a state of AutoAttack ({why}): give another file")


def read_state(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict, dict]:
    """Returns a state's arrays, its identity and its figures; raises InputError for a damaged file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        held, figures = (json.loads(str(arrays[name])) for name in ("identity", "figures"))
        count, changed = len(arrays["broken"]), arrays["changed"]
        attacks = arrays["robust_after"].shape == (len(arrays["attacks"]), count)
        lengths = {len(changed), len(arrays["logits"])} == {count}
        kinds = isinstance(held, dict) and {"seconds", "zero_gradients"} <= figures.keys()
        if not (attacks and lengths and kinds and len(arrays["x_adv"]) == changed.sum()):
            raise ValueError
    except Exception as error:  # NumPy and zipfile raise many kinds
        raise _damaged(path, type(error).__name__) from None
    return arrays, held, figures
