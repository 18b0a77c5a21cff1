"""Stops training when the loss or the weights become non-finite."""

import jax
import jax.numpy as jnp
import numpy as np

from rwp_jax.distributed import processes
from rwp_jax.runs.checkpoint import Checkpoints


class NonFiniteLoss(RuntimeError):
    """The loss or the weights became non-finite; the message names step and last good checkpoint."""


@jax.jit
def _all_finite(tree):
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def check_finite(
    steps: list[dict], state, epoch: int, steps_before: int, checkpoints: Checkpoints
) -> None:
    """Raises NonFiniteLoss if a loss, or the weights or statistics after the last step, are non-finite.

    `steps` are those of an epoch that are done, `steps_before` the number of steps before it.
    """
    finite = np.isfinite([step["loss"] for step in steps])
    finite[-1] &= bool(_all_finite((state.params, state.batch_stats)))
    if finite.all():
        return
    first = int(np.argmin(finite))
    loss, rate = steps[first]["loss"], steps[first]["learning_rate"]
    good = processes.by_first(checkpoints.newest)
    checkpoints.close()
    what = "the weights are not finite" if np.isfinite(loss) else f"the loss is {loss}"
    where = (
        f"the last good checkpoint is {checkpoints.path(good['step'])}, after step {good['step']} in epoch "
        f"{good['epoch'] + 1}"
        if good
        else "there is no checkpoint yet"
    )
    raise NonFiniteLoss(
        f"{what} at step {steps_before + first} (epoch {epoch + 1}), learning rate {rate:g}; "
        f"{where}"
    )
