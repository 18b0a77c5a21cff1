"""AutoAttack (Croce and Hein, 2020, arXiv:2003.01690): attacks in turn, each on what the others left."""

import pathlib
import time
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from rwp_jax import parallel
from rwp_jax.attacks.autoattack import checks, packing, state
from rwp_jax.attacks.autoattack.model import Model, make_model
from rwp_jax.attacks.autoattack.suite import ATTACKS, Attack, attacks_of, check_norm
from rwp_jax.errors import InputError

SAVE_SECONDS = 60  # between two saves of the state


class AutoAttackResult(NamedTuple):
    """What AutoAttack found.

    Attributes:
      x_adv: [N, H, W, C] float32; misclassified where an attack broke a correctly classified image,
        clean elsewhere.
      robust: [N] bool, classified correctly whatever was tried.
      robust_after: the same after each attack in turn, `clean` first.
      seconds: that each attack took, compilation included.
      warnings: what makes the result doubtful.
    """

    x_adv: np.ndarray
    robust: np.ndarray
    robust_after: dict[str, np.ndarray]
    seconds: dict[str, float]
    warnings: list[str]


class Progress(NamedTuple):
    """A moment of the evaluation: the attack, the share of it that is done, images robust so far."""

    attack: str
    fraction: float
    robust: int
    total: int


def _make_classify(model: Model, key, size: int) -> Callable:
    """(images float32 [N, H, W, C], call number) -> logits [N, classes], at full precision."""

    def forward(weights, key, images):
        return model.apply(weights, images, key)

    mapped = parallel.over_examples(forward, (False, False, True))

    def classify(images, call=0):
        logits = []
        for i in range(0, len(images), size):
            part = images[i : i + size]
            padded = np.concatenate([part, np.repeat(part[:1], size - len(part), 0)])
            with jax.default_matmul_precision("highest"):
                output = mapped(model.weights, jax.random.fold_in(key, call), padded)
            logits.append(np.asarray(output)[: len(part)])
        return np.concatenate(logits)

    return classify


def _into_ball(x_adv: np.ndarray, x: np.ndarray, norm: str, epsilon: float) -> np.ndarray:
    """Takes back what rounding to float32 put outside the ball; box and ball then hold exactly."""
    x64 = x.astype(np.float64)
    delta = np.clip(x_adv, 0, 1).astype(np.float64) - x64
    if norm == "Linf":
        delta = np.clip(delta, -epsilon, epsilon)
    else:
        lengths = np.sqrt(np.square(delta).sum((1, 2, 3), keepdims=True))
        delta *= np.minimum(1, epsilon / np.maximum(lengths, 1e-300))
    image = (x64 + delta).astype(np.float32)
    beyond = np.abs(image.astype(np.float64) - x64) > np.abs(delta)
    return np.where(beyond, np.nextafter(image, x), image)


def check_inside(x_adv: np.ndarray, x: np.ndarray, norm: str, epsilon: float) -> None:
    """Raises AssertionError unless every image [N, H, W, C] is in [0, 1] and in the ball around x."""
    delta = x_adv.astype(np.float64) - x
    size = np.abs(delta).max((1, 2, 3)) if norm == "Linf" else np.sqrt((delta**2).sum((1, 2, 3)))
    if not ((x_adv >= 0) & (x_adv <= 1)).all() or not (size <= epsilon * (1 + 1e-12)).all():
        raise AssertionError(f"an image left [0, 1] or the ball: {norm} distance {size.max()}")


class _Record:
    """What is decided so far, in arrays by which an evaluation can be continued."""

    def __init__(self, path, identity: str, x: np.ndarray, y: np.ndarray, logits: np.ndarray):
        self.path, self.identity = pathlib.Path(path) if path else None, identity
        self.logits, self.snapshot, self.saved = logits, {}, time.monotonic()
        self.x_adv, self.broken = x.copy(), logits.argmax(-1) != y
        self.robust_after, self.seconds = {"clean": ~self.broken}, {"clean": 0.0}
        self.done, self.zero_gradients = None, {}
        if self.path and self.path.exists():
            self._load()
        elif self.path and not self.path.absolute().parent.is_dir():
            raise InputError(f"state_path={path}: there is no directory {self.path.parent}")

    def _load(self) -> None:
        arrays, self.snapshot = state.load(self.path, self.identity, self.logits)
        self.broken = arrays["broken"]
        self.x_adv[arrays["changed"]] = arrays["x_adv"]
        names = arrays["names"].tolist()
        self.robust_after = dict(zip(names, arrays["robust_after"], strict=True))
        self.seconds = dict(zip(arrays["timed"].tolist(), arrays["seconds"].tolist(), strict=True))
        self.done = arrays.get("done")
        counted = arrays["counted"].tolist()
        self.zero_gradients = dict(zip(counted, arrays["zero_gradients"].tolist(), strict=True))

    def save(self, snapshot: Callable[[], dict] = dict) -> None:
        if self.path is None:
            return
        changed = self.broken & self.robust_after["clean"]
        arrays = {
            "identity": np.array(self.identity),
            "logits": self.logits,
            "broken": self.broken,
            "changed": changed,
            "x_adv": self.x_adv[changed],
            "names": np.array(list(self.robust_after)),
            "robust_after": np.array(list(self.robust_after.values())),
            "timed": np.array(list(self.seconds)),
            "seconds": np.array(list(self.seconds.values())),
            "counted": np.array(list(self.zero_gradients), dtype=str),
            "zero_gradients": np.array(list(self.zero_gradients.values()), dtype=int),
        }
        if self.done is not None:
            arrays["done"] = self.done
        state.save(self.path, arrays, snapshot())
        self.saved = time.monotonic()


def _run_attack(
    attack: Attack, model: Model, record: _Record, x, y, *, norm, epsilon, key, settings
) -> None:
    """Runs one attack on the images that are not broken, and records what it finds."""
    began, before = time.monotonic(), record.seconds.get(attack.name, 0.0)
    classify, batch_size, precision, progress = settings
    ranks = range(1, min(attack.targets, model.num_classes - 1) + 1) if attack.targets else [0]
    # The class of each target rank, by clean logits: rank 1 is the second largest.
    ranked = np.argsort(-record.logits, -1, kind="stable").astype(np.int32)
    target = np.repeat(ranked[:, list(ranks)], attack.restarts, 1)
    restart = np.tile(np.arange(attack.restarts, dtype=np.int32), len(ranks))
    if record.done is None:
        record.done, record.snapshot = np.zeros(target.shape, bool), {}

    # In order: the first search of every image before the second of any.
    number, image = np.nonzero(~record.done.T & ~record.broken)
    jobs = np.stack([image, number], 1).astype(np.int32)
    if len(jobs):
        programs = packing.compile_attack(attack, model, norm, epsilon, x.shape[1:], precision)
        images = packing.Images(x, y, target, restart)
        batch = packing.Batch(programs, attack, images, jobs, key, batch_size)
        if record.snapshot:
            batch.restore(record.snapshot)
        for ended in packing.run(batch, record.broken):
            record.done[ended.image, ended.number] = True
            count = record.zero_gradients.get(attack.name, 0)
            record.zero_gradients[attack.name] = count + ended.zero_gradients
            # The verdict is a fresh forward's, on the image that is handed in.
            found = ended.image[ended.fooled]
            if len(found):
                x_adv = _into_ball(ended.x_adv, x[found], norm, epsilon)
                logits = classify(x_adv)
                if not np.isfinite(logits).all():
                    raise InputError(
                        f"logits_fn returns NaN or infinite logits for an image of {attack.name}"
                    )
                wrong = logits.argmax(-1) != y[found]
                record.x_adv[found[wrong]] = x_adv[wrong]
                record.broken[found[wrong]] = True
            record.seconds[attack.name] = before + time.monotonic() - began
            if time.monotonic() - record.saved > SAVE_SECONDS:
                record.save(batch.snapshot)
            if progress:
                robust = int((~record.broken).sum())
                progress(Progress(attack.name, batch.fraction(), robust, len(y)))
    record.robust_after[attack.name] = ~record.broken
    record.seconds[attack.name] = before + time.monotonic() - began
    record.done, record.snapshot = None, {}
    record.save()


def autoattack(
    logits_fn: Callable,
    x,
    y,
    norm: str = "Linf",
    epsilon: float = 8 / 255,
    version: str = "standard",
    *,
    key=0,
    batch_size: int | None = None,
    attacks: Sequence[str | Attack] | None = None,
    randomized: bool = False,
    precision: str = "highest",
    state_path: str | pathlib.Path | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> AutoAttackResult:
    """Attacks every correctly classified image until one attack succeeds.

    Args:
      logits_fn: images float32 [B, H, W, C] in [0, 1] -> logits [B, classes], not probabilities; pure
        and differentiable, examples must not interact. Best not compiled: then its weights are arguments
        of the compiled programs, and another checkpoint needs no new ones.
      x: images [N, H, W, C], floating point in [0, 1].
      y: labels [N], integers.
      norm: `Linf` or `L2`.
      epsilon: radius of the ball, in pixels in [0, 1].
      version: `standard` (APGD-CE, targeted APGD, targeted FAB, Square), `plus`, `rand` for randomised
        defences, or `custom`.
      key: seed or random key. Draws depend on it, the image's place in x and the attack alone.
      batch_size: images at once, over all devices of this host; default 16 a CPU, 256 an accelerator.
      attacks: for `custom`, names (`apgd-ce`, `apgd-dlr`, `apgd-t`, `fab`, `fab-t`, `square`) or, with
        other settings, such as `Square(queries=10_000)`; see `suite`.
      randomized: whether logits_fn takes a random key as its second argument.
      precision: of matrix products within the attacks, see `jax.default_matmul_precision`. Verdicts
        always have the highest.
      state_path: file in which progress is kept, every minute; given again, the evaluation continues.
      progress: called with how far it is, about every hundred iterations.

    Returns:
      AutoAttackResult. Warns with AutoAttackWarning of what makes it doubtful.

    Raises:
      InputError: for arguments that do not fit, before anything is attacked; for NaN logits; for a state
        of another evaluation.
    """
    check_norm(norm)
    epsilon = checks.check_epsilon(epsilon)
    chosen = attacks_of(version, attacks)
    if batch_size is None:
        batch_size = (16 if jax.default_backend() == "cpu" else 256) * jax.local_device_count()
    if not isinstance(batch_size, int) or batch_size < 1:
        raise InputError(f"batch_size={batch_size!r} must be a positive integer")
    x, y = checks.check_images(x, y)
    key = jax.random.key(key) if isinstance(key, int) else key
    if not jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(key)

    model = make_model(logits_fn, x.shape[1:], randomized)
    size = packing.batch_size_for(min(len(x), batch_size), batch_size)
    classify = _make_classify(model, jax.random.fold_in(key, len(ATTACKS)), size)
    logits = classify(x)
    checks.check_logits(logits, y)

    said = []

    def warn(messages):
        for message in messages:
            said.append(message)
            warnings.warn(message, checks.AutoAttackWarning, stacklevel=3)

    chosen, messages = checks.fitting(chosen, model.num_classes)
    warn(messages)
    warn(checks.randomness(classify, x[:size], y[:size], version))
    if not randomized:
        warn(checks.drawn_at_trace(logits_fn, x.shape[1:]))
    warn(checks.deterministic(model, chosen))
    warn(checks.probabilities(logits))

    facts = {
        "norm": norm,
        "epsilon": epsilon,
        "attacks": repr(chosen),
        "key": jax.random.key_data(key).tolist(),
    }
    record = _Record(state_path, state.identity(x, y, facts), x, y, logits)
    settings = classify, batch_size, precision, progress
    for attack in chosen:
        if attack.name not in record.robust_after:
            attack_key = jax.random.fold_in(key, list(ATTACKS).index(attack.name))
            _run_attack(
                attack,
                model,
                record,
                x,
                y,
                norm=norm,
                epsilon=epsilon,
                key=attack_key,
                settings=settings,
            )
        warn(checks.zero_gradients(attack, record.zero_gradients.get(attack.name, 0)))
    warn(checks.gradient_masking(record.robust_after))

    check_inside(record.x_adv, x, norm, epsilon)
    return AutoAttackResult(record.x_adv, ~record.broken, record.robust_after, record.seconds, said)
