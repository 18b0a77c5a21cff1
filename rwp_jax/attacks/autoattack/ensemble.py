"""AutoAttack (Croce and Hein, 2020, arXiv:2003.01690): attacks in turn, each on what the others left."""

import os
import pathlib
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from rwp_jax.attacks.arguments import check_key, check_radius
from rwp_jax.attacks.autoattack import checks, doubts, packing
from rwp_jax.attacks.autoattack.ball import check_inside, into_ball
from rwp_jax.attacks.autoattack.forward import Forward
from rwp_jax.attacks.autoattack.model import Model, make_model
from rwp_jax.attacks.autoattack.progress import Progress, listener
from rwp_jax.attacks.autoattack.slots import compile_attack
from rwp_jax.attacks.autoattack.state import Record, identity
from rwp_jax.attacks.autoattack.suite import ATTACKS, Attack, attacks_of, check_norm
from rwp_jax.errors import InputError, check_integer, check_path, shown

# Stream of the draws in verdicts, beside those of the attacks, which are numbered from 0.
_VERDICTS = 2**31 - 1


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


class _Setting(NamedTuple):
    """What all attacks of an evaluation share."""

    model: Model
    forward: Forward
    x: np.ndarray
    y: np.ndarray
    norm: str
    epsilon: float
    key: Any
    batch_size: int
    precision: str
    attacks: int
    progress: Callable | None


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
        numbers = np.isfinite(ended.x_adv).all((1, 2, 3))  # no gradient, no image
        x_adv = np.where(numbers[:, None, None, None], ended.x_adv, setting.x[image])
        x_adv = into_ball(x_adv, setting.x[image], setting.norm, setting.epsilon)
        logits = setting.forward(x_adv)
        record.verdict_calls = setting.forward.calls
        lost = ~(numbers & np.isfinite(logits).all(-1))
        wrong = (logits.argmax(-1) != setting.y[image]) | lost
        record.x_adv[image[wrong]] = x_adv[wrong]
        record.broken[image[wrong]] = True
        record.give_up(attack.name, image[lost])
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
    reuse: bool = False,
    state_path: str | pathlib.Path | None = None,
    progress: Callable[[Progress], None] | bool | None = None,
) -> AutoAttackResult:
    """Attacks every correctly classified image until one attack succeeds.

    Args:
      logits_fn: images float32 [B, H, W, C] in [0, 1] -> logits [B, classes], not probabilities; pure
        and differentiable, examples must not interact. Best not compiled: then its weights are arguments
        of the compiled programs, and another checkpoint needs no new ones.
      x: images [N, H, W, C], floating point in [0, 1].
      y: labels [N], integers.
      norm: `Linf`, `L2` or `L1`.
      epsilon: radius of the ball, in pixels in [0, 1]; from 0 to less than the largest distance of two
        images, which is 1 for Linf, sqrt(H W C) for L2 and H W C for L1.
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
      reuse: whether compiled programs are to serve other checkpoints of the network. On accelerators they
        always do; on CPUs, where constant weights are faster, only so. Other radii never need new ones.
      state_path: file in which progress is kept, every minute; given again, the evaluation continues.
      progress: called with how far it is, a `Progress`, about every hundred iterations; True draws a bar on
        standard error.

    Returns:
      AutoAttackResult. Warns with AutoAttackWarning of what makes it doubtful, such as images for which the
        network has NaN, which count as not robust.

    Raises:
      InputError: for arguments that do not fit, before anything is attacked; for NaN logits of all clean
        images; for a state of another evaluation.
    """
    check_norm(norm)
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
    for name, value in {"randomized": randomized, "reuse": reuse}.items():
        if not isinstance(value, bool):
            raise InputError(f"{name}={shown(value)} must be True or False")
    progress = listener(progress)
    x, y = checks.check_images(x, y)
    epsilon = check_radius("epsilon", epsilon, norm, x.shape[1:])
    key = check_key(key)

    model = make_model(logits_fn, x.shape[1:], randomized, reuse=reuse)
    size = packing.batch_size_for(min(len(x), batch_size), batch_size)
    forward = Forward(model, jax.random.fold_in(key, _VERDICTS), size)
    logits = forward(x)
    checks.check_clean_logits(logits, y)

    said = []

    def warn(messages):
        for message in messages:
            said.append(message)
            warnings.warn(message, doubts.AutoAttackWarning, stacklevel=3)

    chosen, messages = doubts.fitting(wanted, model.num_classes, version == "custom")
    warn(messages)
    warn(doubts.randomness(forward, x[:size], y[:size], version, randomized))
    if not randomized:
        impure = list(doubts.impurity(logits_fn, x.shape[1:]))
        warn(impure)
        # What is frozen anew in each program differs between their batch sizes.
        if not impure:
            warn(doubts.frozen_draws(model))
            warn(doubts.interaction(forward, x, logits))
    warn(doubts.gradients_inside(model))
    warn(doubts.deterministic(model, chosen))
    warn(doubts.probabilities(logits))
    warn(doubts.nothing_correct(logits, y))

    facts = {
        "norm": norm,
        "epsilon": epsilon,
        "attacks": repr(chosen),
        "key": jax.random.key_data(key).tolist(),
        "network": model.digest,
        "precision": precision,
    }
    record = Record(path, identity(x, y, facts), x, y, logits)
    forward.calls = max(forward.calls, record.verdict_calls)
    warn(
        doubts.not_finite(
            "before any attack", np.flatnonzero(~np.isfinite(logits).all(-1)).tolist()
        )
    )
    shared = (model, forward, x, y, norm, epsilon, key, batch_size, precision)
    setting = _Setting(*shared, len(chosen), progress)
    for attack in chosen:
        if attack.name not in record.robust_after:
            _run_attack(setting, attack, record)
        warn(doubts.not_finite(f"under {attack.name}", record.not_finite.get(attack.name, [])))
        warn(doubts.zero_gradients(attack, record.zero_gradients.get(attack.name, 0)))
    warn(doubts.gradient_masking(record.robust_after))

    check_inside(record.x_adv, x, norm, epsilon)
    return AutoAttackResult(record.x_adv, ~record.broken, record.robust_after, record.seconds, said)
