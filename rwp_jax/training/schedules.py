"""Learning-rate schedules: those of the authors' scripts, PyTorch's OneCycleLR, and others that warm up."""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import optax

from rwp_jax.errors import InputError, check_choice

WARMING = ("one_cycle", "one_cycle_epoch", "cosine_warmup", "cyclic")
SCHEDULES = (
    "piecewise",
    "piecewise_epoch",
    "cosine",
    "cosine_epoch",
    *WARMING,
    "constant",
)
# Of OneCycleLR: the full rate over the first one, and the first one over the last.
_DIV_FACTOR, _FINAL_DIV_FACTOR = 25, 10_000


def check_schedule(name: str, warmup: float) -> None:
    """Raises InputError unless the schedule is known and `warmup` is what it takes."""
    check_choice("config.optimizer.schedule", name, SCHEDULES)
    accepted = "in (0, 1), such as 0.3" if name in WARMING else "0"
    if not (0 < warmup < 1 if name in WARMING else warmup == 0):
        raise InputError(
            f"config.optimizer.warmup={warmup} must be {accepted}, for config.optimizer.schedule={name!r}"
        )


def make_schedule(
    name: str,
    learning_rate: float,
    epochs: int,
    steps_per_epoch: int,
    dtype: str | None = None,
    warmup: float = 0.0,
) -> optax.Schedule:
    """Returns the learning rate as a function of the step, counted from 0.

    The authors' AT scripts set the rate of step i of an epoch at t = epoch + (i + 1) / steps_per_epoch.
    `piecewise`: a tenth of the full rate from t = epochs / 2, a hundredth from t = 3/4 epochs.
    `cosine`: half a period, from the full rate to 0 at t = epochs. `constant`: the full rate.
    `cyclic` (Rice et al., 2020): linearly from 0 to the full rate at t = warmup * epochs, and back to 0.
    The other scripts keep the rate constant within an epoch. `piecewise_epoch` (TRADES) drops when the
    epoch number, counted from 1, reaches 1/2 and 3/4 of all epochs, so one epoch earlier.
    `cosine_epoch` (RST) starts at the full rate and ends one epoch short of 0.

    `one_cycle` is PyTorch's OneCycleLR with pct_start = `warmup` and its other defaults: half a cosine from
    1/25 to the full rate, then one to 1/250,000. `one_cycle_epoch` is stepped once an epoch, as Wang et al.
    (2023) do. `cosine_warmup` is PyTorch's SequentialLR of LinearLR, over W = int(warmup * total steps)
    steps from 1/W of the full rate, and CosineAnnealingLR over the others.

    `dtype` is that of the rate, regardless of jax_enable_x64; None selects JAX's default.
    """
    check_schedule(name, warmup)
    number = jnp.dtype(dtype or jnp.result_type(float))
    full = jnp.asarray(learning_rate, number)
    total = epochs * steps_per_epoch
    by_epoch = lambda step: step // steps_per_epoch
    if name == "piecewise":
        # In integers: rounding must not shift the drops at 1/2 and 3/4 of `total`.
        late = lambda step: jnp.where(4 * (step + 1) < 3 * total, 0.1, 0.01)
        share = lambda step: jnp.where(2 * (step + 1) < total, 1.0, late(step))
        return lambda step: full * share(step).astype(number)
    if name == "cosine":
        cosine = optax.cosine_decay_schedule(learning_rate, total)
        return lambda step: cosine(jnp.asarray(step + 1, number))
    if name == "piecewise_epoch":
        epoch = lambda step: by_epoch(step) + 1
        late = lambda step: jnp.where(4 * epoch(step) < 3 * epochs, 0.1, 0.01)
        share = lambda step: jnp.where(2 * epoch(step) < epochs, 1.0, late(step))
        return lambda step: full * share(step).astype(number)
    if name == "cosine_epoch":
        cosine = optax.cosine_decay_schedule(learning_rate, epochs)
        return lambda step: cosine(jnp.asarray(by_epoch(step), number))
    if name == "cyclic":
        done = lambda step: jnp.asarray(step + 1, number) / total
        share = lambda t: jnp.minimum(t / warmup, (1 - t) / (1 - warmup))
        return lambda step: full * share(done(step)).astype(number)
    if name == "cosine_warmup":
        rising = int(warmup * total)
        return lambda step: full * _rising_cosine(jnp.asarray(step, number), rising, total)
    if name in ("one_cycle", "one_cycle_epoch"):
        count = by_epoch if name == "one_cycle_epoch" else lambda step: step
        cycles = epochs if name == "one_cycle_epoch" else total
        first = full / _DIV_FACTOR
        rates = first, full, first / _FINAL_DIV_FACTOR
        return lambda step: one_cycle(jnp.asarray(count(step), number), cycles, warmup, *rates)
    return lambda step: full


def _rising_cosine(step, rising: int, total: int):
    """The share of the full rate at a step of `cosine_warmup`."""
    start = 1 / max(rising, 1)
    linear = start + (1 - start) * step / max(rising, 1)
    cosine = (1 + jnp.cos(math.pi * (step - rising) / (total - rising))) / 2
    return jnp.where(step < rising, linear, cosine)


def one_cycle(step, total: int, warmup: float, first, peak, last):
    """PyTorch's OneCycleLR: half a cosine from `first` to `peak`, then one to `last`.

    The peak lies at step `warmup` * `total` - 1, a fraction, and the last value at step `total` - 1; for a
    warm-up of at most one step, step 0 is at the peak or past it.
    """
    top, end = float(warmup * total) - 1, total - 1
    rising = _anneal(first, peak, step / top if top > 0 else 1.0)
    falling = _anneal(peak, last, (step - top) / (end - top))
    return jnp.where(step <= top, rising, falling) if top > 0 else falling


def _anneal(start, end, share):
    return end + (start - end) / 2 * (1 + jnp.cos(math.pi * share))


def momentum_schedule(
    name: str, cycle: tuple[float, float], epochs: int, steps_per_epoch: int, warmup: float
) -> Callable[[Any], Any]:
    """Returns the momentum as a function of the step: OneCycleLR's, the reverse of the rate's cycle.

    Args:
      name: `one_cycle` or `one_cycle_epoch`.
      cycle: lowest and highest momentum; PyTorch's default is (0.85, 0.95).
      epochs: of training.
      steps_per_epoch: positive.
      warmup: share of training until the lowest momentum.
    """
    low, high = cycle
    by_epoch = name == "one_cycle_epoch"
    total = epochs if by_epoch else epochs * steps_per_epoch

    def momentum(step):
        count = jnp.asarray(step // steps_per_epoch if by_epoch else step, jnp.result_type(float))
        return one_cycle(count, total, warmup, high, low, high)

    return momentum
