"""SGD with the semantics of torch.optim.SGD, and the learning-rate schedules of the authors' scripts."""

import jax.numpy as jnp
import optax

from rwp_jax.errors import InputError

SCHEDULES = ("piecewise", "piecewise_epoch", "cosine", "cosine_epoch", "constant")


def make_schedule(
    name: str, learning_rate: float, epochs: int, steps_per_epoch: int, dtype: str | None = None
) -> optax.Schedule:
    """Returns the learning rate as a function of the step, counted from 0.

    The authors' AT scripts set the rate of step i of an epoch at t = epoch + (i + 1) / steps_per_epoch.
    `piecewise`: a tenth of the full rate from t = epochs / 2, a hundredth from t = 3/4 epochs.
    `cosine`: half a period, from the full rate to 0 at t = epochs. `constant`: the full rate.
    The other scripts keep the rate constant within an epoch. `piecewise_epoch` (TRADES) drops when the
    epoch number, counted from 1, reaches 1/2 and 3/4 of all epochs, so one epoch earlier.
    `cosine_epoch` (RST) starts at the full rate and ends one epoch short of 0.

    `dtype` is that of the rate, regardless of jax_enable_x64; None selects JAX's default.
    """
    number = jnp.dtype(dtype or jnp.result_type(float))
    full = jnp.asarray(learning_rate, number)
    total = epochs * steps_per_epoch
    if name == "piecewise":
        # In integers: rounding must not shift the drops at 1/2 and 3/4 of `total`.
        late = lambda step: jnp.where(4 * (step + 1) < 3 * total, 0.1, 0.01)
        share = lambda step: jnp.where(2 * (step + 1) < total, 1.0, late(step))
        return lambda step: full * share(step).astype(number)
    if name == "cosine":
        cosine = optax.cosine_decay_schedule(learning_rate, total)
        return lambda step: cosine(jnp.asarray(step + 1, number))
    if name == "piecewise_epoch":
        epoch = lambda step: step // steps_per_epoch + 1
        late = lambda step: jnp.where(4 * epoch(step) < 3 * epochs, 0.1, 0.01)
        share = lambda step: jnp.where(2 * epoch(step) < epochs, 1.0, late(step))
        return lambda step: full * share(step).astype(number)
    if name == "cosine_epoch":
        cosine = optax.cosine_decay_schedule(learning_rate, epochs)
        return lambda step: cosine(jnp.asarray(step // steps_per_epoch, number))
    if name == "constant":
        return lambda step: full
    raise InputError(f"config.optimizer.schedule={name!r} must be one of {', '.join(SCHEDULES)}")


def make_sgd(
    schedule, momentum: float = 0.0, weight_decay: float = 0.0, nesterov: bool = False
) -> optax.GradientTransformation:
    """Returns SGD with PyTorch's momentum and weight decay (added to the gradient of every parameter)."""
    return optax.chain(
        optax.add_decayed_weights(weight_decay),
        optax.sgd(schedule, momentum=momentum or None, nesterov=nesterov),
    )
