"""One attack on many images: its searches, and the verdicts on the images that they return."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from rwp_jax.attacks.autoattack import packing
from rwp_jax.attacks.autoattack.ball import into_ball
from rwp_jax.attacks.autoattack.forward import Forward
from rwp_jax.attacks.autoattack.model import Model
from rwp_jax.attacks.autoattack.progress import Progress
from rwp_jax.attacks.autoattack.settings import Attack
from rwp_jax.attacks.autoattack.slots import compile_attack
from rwp_jax.attacks.autoattack.state import Record
from rwp_jax.attacks.autoattack.suite import NUMBERS


class Setting(NamedTuple):
    """Network, images and settings that all attacks of an evaluation share."""

    model: Model
    forward: Forward
    x: np.ndarray
    y: np.ndarray
    norm: str
    epsilon: float
    key: Any
    batch_size: int
    precision: str
    targets: np.ndarray | None
    attacks: int
    progress: Callable | None


def _searches(
    attack: Attack, logits: np.ndarray, targets: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns target classes [N, searches], the caller's or by clean logits, and restarts [searches]."""
    ranked = np.argsort(-logits, -1, kind="stable").astype(np.int32)
    if not attack.targets:
        targets = ranked[:, :1]
    elif targets is None:
        targets = ranked[:, 1 : 1 + attack.targets]
    restarts = np.tile(np.arange(attack.restarts, dtype=np.int32), targets.shape[1])
    return np.repeat(targets, attack.restarts, 1), restarts


def _judge(setting: Setting, attack: Attack, record: Record, ended: packing.Ended) -> np.ndarray:
    """Decides by a fresh forward pass whether images found by searches are misclassified, and records it.

    Returns:
      [n] bool, whether a search claimed success with an image that is classified correctly.
    """
    refuted = np.zeros(len(ended.image), bool)
    image = ended.image[ended.fooled]
    if len(image):
        # Non-finite gradients make images non-finite.
        numbers = np.isfinite(ended.x_adv).all((1, 2, 3))
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


def run_attack(setting: Setting, attack: Attack, record: Record, place: int) -> None:
    """Runs one attack, number `place` from 0, on the images that are not broken."""
    began, before = time.monotonic(), record.seconds.get(attack.name, 0.0)
    targets, restarts = _searches(attack, record.logits, setting.targets)
    if record.done is None:
        record.done = np.zeros(targets.shape, bool)
    record.zero_gradients.setdefault(attack.name, 0)
    # The first search of every image comes before the second search of any.
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
        key = jax.random.fold_in(setting.key, NUMBERS[attack.name])
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
                moment = (attack.name, place, setting.attacks, batch.fraction(), robust)
                setting.progress(Progress(*moment, len(setting.y)))
    record.seconds[attack.name] = before + time.monotonic() - began
    record.finish(attack.name)
