"""What objectives of the user's own must return, checked on shapes before anything is trained."""

from typing import Any

import jax.numpy as jnp

from rwp_jax.errors import InputError
from rwp_jax.training.objectives import Aux, Objective
from rwp_jax.training.train_step import METRICS


def checked(objective: Objective) -> Objective:
    """The same objective; its functions raise InputError for results that the step cannot use."""

    def per_example(train, params, batch):
        result: Any = objective.per_example(train, params, batch)
        is_pair = isinstance(result, tuple) and len(result) == 2
        if not is_pair or not isinstance(result[1], Aux):
            given = f"({', '.join(type(part).__name__ for part in result)})" if is_pair else ""
            given = given or type(result).__name__
            raise InputError(f"per_example= returns {given}, must return (loss [B], rwp_jax.Aux)")
        moments = result[1].moments
        if not isinstance(moments, tuple) or not moments:
            given = "an empty tuple" if moments == () else f"a {type(moments).__name__}"
            raise InputError(
                f"per_example= returns Aux with moments={given}, must be a tuple of the moments of each "
                "forward"
            )
        return result

    def attack_loss(forward, x, y):
        loss: Any = objective.attack_loss and objective.attack_loss(forward, x, y)
        if not callable(loss):
            given = type(loss).__name__
            raise InputError(f"attack_loss= returns a {given}, must return a function of logits")
        return loss

    return objective._replace(
        per_example=per_example, attack_loss=objective.attack_loss and attack_loss
    )


def wrong_in(objective: Objective, aux: Aux, attack_loss) -> str:
    """What two examples show to be wrong; empty where nothing is."""
    of_each = lambda values, kind: values.shape == (2,) and jnp.issubdtype(values.dtype, kind)
    wrong = [name for name, term in aux.terms.items() if not of_each(term, jnp.floating)]
    if wrong:
        return f"of its terms {wrong[0]!r} must have a value of each example, floating-point [B]"
    if not of_each(aux.correct, jnp.bool_):
        return f"aux.correct is {aux.correct.dtype}{list(aux.correct.shape)}, must be bool [B]"
    if attack_loss is not None and not of_each(attack_loss, jnp.floating):
        given = f"{attack_loss.dtype}{list(attack_loss.shape)}"
        return f"attack_loss gives {given}, must give a floating-point loss of each example, [B]"
    taken = sorted(set(aux.terms) & {*METRICS, objective.accuracy})
    if taken:
        return f"of its terms {taken[0]!r} is a metric already"
    if not isinstance(objective.accuracy, str) or objective.accuracy in METRICS:
        return f"accuracy={objective.accuracy!r} must be the name of a metric that is not taken"
    return ""
