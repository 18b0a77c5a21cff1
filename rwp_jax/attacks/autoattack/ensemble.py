"""AutoAttack (Croce and Hein, 2020, arXiv:2003.01690): attacks in turn, each on what the others left."""

import dataclasses
import os
import pathlib
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from rwp_jax.attacks.arguments import check_key
from rwp_jax.attacks.autoattack import checks, packing
from rwp_jax.attacks.autoattack.ball import check_inside, into_ball
from rwp_jax.attacks.autoattack.model import Model, make_model
from rwp_jax.attacks.autoattack.slots import compile_attack
from rwp_jax.attacks.autoattack.state import Record, identity
from rwp_jax.attacks.autoattack.suite import ATTACKS, Attack, attacks_of, check_norm
from rwp_jax.distributed import devices
from rwp_jax.errors import InputError, check_integer, check_path


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


@dataclasses.dataclass(frozen=True)
class Progress:
    """A moment of the evaluation.

    Attributes:
      attack: its name.
      index: its place among the attacks, from 0.
      attacks: how many they are.
      fraction: the share of this attack that is done, or not needed any more.
      robust: images not broken so far.
      total: images.
    """

    attack: str
    index: int
    attacks: int
    fraction: float
    robust: int
    total: int


class _Setting(NamedTuple):
    """What all attacks of an evaluation share; `classify` as `_make_classify` makes it."""

    model: Model
    classify: Callable
    x: np.ndarray
    y: np.ndarray
    norm: str
    epsilon: float
    key: Any
    batch_size: int
    precision: str
    attacks: int
    progress: Callable | None


def _make_classify(model: Model, key, size: int) -> Callable:
    """(images float32 [N, H, W, C], call number) -> logits [N, classes], at full precision."""

    def forward(weights, key, images):
        return model.apply(weights, images, key)

    mapped = devices.over_examples(forward, (False, False, True))

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


def _searches(attack: Attack, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Target classes [N, searches] by clean logits, and the restart that each search is."""
    ranked = np.argsort(-logits, -1, kind="stable").astype(np.int32)
    targets = ranked[:, 1 : 1 + attack.targets] if attack.targets else ranked[:, :1]
    restarts = np.tile(np.arange(attack.restarts, dtype=np.int32), targets.shape[1])
    return np.repeat(targets, attack.restarts, 1), restarts


def _judge(setting: _Setting, attack: Attack, record: Record, ended: packing.Ended) -> np.ndarray:
    """Records what searches found; the verdict is a fresh forward's, on the image handed in.

    Returns:
      [n] bool, which of the searches handed in an image that is classified correctly.
    """
    refuted = np.zeros(len(ended.image), bool)
    image = ended.image[ended.fooled]
    if len(image):
        if not np.isfinite(ended.x_adv).all():
            raise InputError(f"logits_fn has a NaN gradient for an image of {attack.name}")
        x_adv = into_ball(ended.x_adv, setting.x[image], setting.norm, setting.epsilon)
        logits = setting.classify(x_adv)
        if not np.isfinite(logits).all():
            raise InputError(
                f"logits_fn returns NaN or infinite logits for an image of {attack.name}"
            )
        wrong = logits.argmax(-1) != setting.y[image]
        record.x_adv[image[wrong]] = x_adv[wrong]
        record.broken[image[wrong]] = True
        refuted[ended.fooled] = ~wrong
    return refuted


def _run_attack(setting: _Setting, attack: Attack, record: Record) -> None:
    """Runs one attack on the images that are not broken."""
    began, before = time.monotonic(), record.seconds.get(attack.name, 0.0)
    targets, restarts = _searches(attack, record.logits)
    if record.done is None:
        record.done = np.zeros(targets.shape, bool)
    record.zero_gradients.setdefault(attack.name, 0)
    # In order: the first search of every image before the second of any.
    number, image = np.nonzero(~record.done.T & ~record.broken)
    if len(image):
        programs = compile_attack(
            attack,
            setting.model,
            setting.norm,
            setting.epsilon,
            setting.x.shape[1:],
            setting.precision,
        )
        images = packing.Images(setting.x, setting.y, targets, restarts)
        jobs = np.stack([image, number], 1).astype(np.int32)
        key = jax.random.fold_in(setting.key, list(ATTACKS).index(attack.name))
        left = list(record.robust_after.values())[-1].sum() * targets.shape[1]
        batch = packing.PackedBatch(programs, attack, images, jobs, key, setting.batch_size, left)
        if record.snapshot:
            batch.restore(record.snapshot)
        for ended in packing.run(batch, record.broken):
            again = batch.take_back(ended, _judge(setting, attack, record, ended))
            record.done[ended.image[~again], ended.number[~again]] = True
            zero_gradients = int(ended.zero_gradient[~again].sum())
            record.zero_gradients[attack.name] += zero_gradients
            record.seconds[attack.name] = before + time.monotonic() - began
            record.save_sometimes(batch.snapshot)
            if setting.progress:
                robust = int((~record.broken).sum())
                index = len(record.robust_after) - 1
                moment = (attack.name, index, setting.attacks, batch.fraction(), robust)
                setting.progress(Progress(*moment, len(setting.y)))
    record.seconds[attack.name] = before + time.monotonic() - began
    record.finish(attack.name)


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
    precision: str = "default",
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
      norm: `Linf`, `L2` or `L1`.
      epsilon: radius of the ball, in pixels in [0, 1].
      version: `standard` (APGD-CE, targeted APGD, targeted FAB, Square; in L1 with restarts, targets and
        radii of its own), `plus`, `rand` for randomised
        defences, or `custom`.
      key: seed or random key. Draws depend on it, the image's place in x and the attack alone.
      batch_size: images at once, over all devices of this host; default 16 a CPU, 256 an accelerator.
      attacks: for `custom`, names (`apgd-ce`, `apgd-dlr`, `apgd-t`, `fab`, `fab-t`, `square`) or, with
        other settings, such as `Square(queries=10_000)`; see `suite`.
      randomized: whether logits_fn takes a random key as its second argument.
      precision: of matrix products within the attacks, see `jax.default_matmul_precision`; by default the
        fast mode of the device. Verdicts always have the highest.
      state_path: file in which progress is kept, every minute; given again, the evaluation continues.
      progress: called with how far it is, about every hundred iterations.

    Returns:
      AutoAttackResult. Warns with AutoAttackWarning of what makes it doubtful.

    Raises:
      InputError: for arguments that do not fit, before anything is attacked; for NaN logits; for a state
        of another evaluation.
    """
    check_norm(norm)
    epsilon = checks.check_epsilon(epsilon, norm)
    wanted = attacks_of(version, attacks, norm)
    if batch_size is None:
        batch_size = packing.default_batch_size(jax.default_backend(), jax.local_device_count())
    batch_size = check_integer("batch_size", batch_size, 1)
    checks.check_matmul_precision(precision)
    path = None if state_path is None else check_path("state_path", state_path)
    if path and not path.absolute().parent.is_dir():
        raise InputError(f"state_path={path}: there is no such directory")
    if path and not os.access(path.absolute().parent, os.W_OK):
        raise InputError(f"state_path={path}: no permission to write in its directory")
    if not isinstance(randomized, bool):
        raise InputError(f"randomized={randomized!r} must be True or False")
    if progress is not None and not callable(progress):
        raise InputError(f"progress={progress!r} must be a function")
    x, y = checks.check_images(x, y)
    key = check_key(key)

    model = make_model(logits_fn, x.shape[1:], randomized)
    size = packing.batch_size_for(min(len(x), batch_size), batch_size)
    classify = _make_classify(model, jax.random.fold_in(key, len(ATTACKS)), size)
    logits = classify(x)
    checks.check_clean_logits(logits, y)

    said = []

    def warn(messages):
        for message in messages:
            said.append(message)
            warnings.warn(message, checks.AutoAttackWarning, stacklevel=3)

    chosen, messages = checks.fitting(wanted, model.num_classes)
    warn(messages)
    warn(checks.randomness(classify, x[:size], y[:size], version, randomized))
    if not randomized:
        warn(checks.drawn_at_trace(logits_fn, x.shape[1:]))
        warn(checks.interaction(classify, x, logits))
    warn(checks.deterministic(model, chosen))
    warn(checks.probabilities(logits))

    facts = {
        "norm": norm,
        "epsilon": epsilon,
        "attacks": repr(chosen),
        "key": jax.random.key_data(key).tolist(),
        "network": model.digest,
        "precision": precision,
    }
    record = Record(path, identity(x, y, facts), x, y, logits)
    shared = (model, classify, x, y, norm, epsilon, key, batch_size, precision)
    setting = _Setting(*shared, len(chosen), progress)
    for attack in chosen:
        if attack.name not in record.robust_after:
            _run_attack(setting, attack, record)
        warn(checks.zero_gradients(attack, record.zero_gradients.get(attack.name, 0)))
    warn(checks.gradient_masking(record.robust_after))

    check_inside(record.x_adv, x, norm, epsilon)
    return AutoAttackResult(record.x_adv, ~record.broken, record.robust_after, record.seconds, said)
