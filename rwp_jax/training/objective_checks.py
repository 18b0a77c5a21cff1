"""Checks of user-defined networks and objectives, by shapes, before training begins."""

import re
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import tree_leaves_with_path

from rwp_jax.errors import InputError, first_line, shown
from rwp_jax.training.objective import Aux, Mixed, Objective, attack_labels
from rwp_jax.training.train_step import METRICS, Recipe, attack_and_update, init_state


def try_own(config, recipe: Recipe, image_shape: tuple[int, ...]) -> None:
    """Traces a step of a user-defined network or objective; raises InputError if that fails.

    Args:
      config: config of the run.
      recipe: its recipe, with a network for one device.
      image_shape: height, width and channels.
    """
    recipe = recipe._replace(objective=checked(recipe.objective))
    names = f"config.model.name={config.model.name!r} with config.objective.name={config.objective.name!r}"

    def step(key):
        state = init_state(recipe, key, image_shape)
        dtype = jax.tree.leaves(state.params)[0].dtype
        x, y = jnp.zeros((2, *image_shape), dtype), jnp.zeros(2, jnp.int32)
        mixed = Mixed(y, jnp.ones(2, dtype)) if config.augment.cutmix else None
        attack_loss = None
        if recipe.objective.attack_loss:
            forward = lambda images: recipe.classifier.eval(state.params, state.batch_stats, images)
            labels = attack_labels(y, mixed)
            attack_loss = recipe.objective.attack_loss(forward, x, *labels)(forward(x))
        perturbed = attack_and_update(recipe, state, x, y, jnp.zeros_like(x), mixed=mixed)[2]
        return perturbed.aux, attack_loss

    try:
        aux, _ = jax.eval_shape(step, jax.random.key(0))
        wrong = taken_name(recipe.objective, aux)
    except InputError as error:
        if re.match("(per_example|gate_loss|attack_loss)=", str(error)):  # of the objective
            raise InputError(f"config.objective.name={config.objective.name!r}: {error}") from None
        raise
    except Exception as error:  # whatever the user's code raises
        why = f"{type(error).__name__}: {first_line(error)}"
        raise InputError(
            f"{names} cannot be traced on images {list(image_shape)} ({why})"
        ) from None
    if wrong:
        raise InputError(f"config.objective.name={config.objective.name!r}: {wrong}")


def checked(objective: Objective) -> Objective:
    """Returns the objective with functions that raise InputError for results that the step cannot use."""

    def per_example(train, params, batch):
        forwards: list[Any] = []  # moments of each

        def recorded(*arguments):
            logits, moments = train(*arguments)
            forwards.append(moments)
            return logits, moments

        result: Any = objective.per_example(recorded, params, batch)
        is_pair = isinstance(result, tuple) and len(result) == 2
        if not is_pair or not isinstance(result[1], Aux):
            given = f"({', '.join(type(part).__name__ for part in result)})" if is_pair else ""
            given = given or type(result).__name__
            raise InputError(f"per_example= returns {given}, must return (loss [B], rwp_jax.Aux)")
        _check_aux(result[1], forwards)
        return result

    def attack_loss(forward, x, *labels):
        loss: Any = objective.attack_loss and objective.attack_loss(forward, x, *labels)
        if not callable(loss):
            given = type(loss).__name__
            raise InputError(f"attack_loss= returns a {given}, must return a function of logits")

        def of_logits(logits):
            values = loss(logits)
            wrong = _no_values("attack_loss= gives", values, "floating-point losses", jnp.floating)
            if wrong:
                raise InputError(wrong)
            return values

        return of_logits

    return objective._replace(
        per_example=per_example, attack_loss=objective.attack_loss and attack_loss
    )


def _no_values(what: str, values, accepted: str, kind: type) -> str:
    """Describes why values are not one per example, for two examples; empty if they are."""
    is_array = hasattr(values, "shape") and hasattr(values, "dtype")
    if is_array and values.shape == (2,) and jnp.issubdtype(values.dtype, kind):
        return ""
    given = f"{values.dtype}{list(values.shape)}" if is_array else f"a {type(values).__name__}"
    return f"{what} {given}, must be {accepted} [B], one per example"


def _check_aux(aux: Aux, forwards: list) -> None:
    """Raises InputError if the step cannot use an Aux of two examples.

    `forwards` are the moments that `train` returned to the objective.
    """
    if not isinstance(aux.moments, tuple) or not aux.moments:
        given = "an empty tuple" if aux.moments == () else f"a {type(aux.moments).__name__}"
        wrong = f"moments={given}, must be a tuple of the moments of each forward"
    elif forwards and any(not _alike(moments, forwards[0]) for moments in aux.moments):
        wrong = "moments that train did not return, must be a tuple of the moments of each forward"
    elif not isinstance(aux.terms, dict) or not all(isinstance(name, str) for name in aux.terms):
        wrong = f"terms={shown(aux.terms)}, must be a dict of arrays by name"
    else:
        wrong = _no_values("gate_loss of", aux.gate_loss, "floating-point losses", jnp.floating)
        wrong = wrong or _no_values("correct of", aux.correct, "bool", jnp.bool_)
        for name, term in aux.terms.items():
            what = f"the term {name!r} of"
            wrong = wrong or _no_values(what, term, "floating-point", jnp.floating)
    if wrong:
        raise InputError(f"per_example= returns Aux with {wrong}")


def _alike(one, other) -> bool:
    """Returns whether two trees have the same structure and shapes."""
    leaves = lambda tree: [(path, jnp.shape(leaf)) for path, leaf in tree_leaves_with_path(tree)]
    return leaves(one) == leaves(other)


def taken_name(objective: Objective, aux: Aux) -> str:
    """Describes a metric name that is already taken; empty if there is none."""
    taken = sorted(set(aux.terms) & {*METRICS, objective.accuracy})
    if taken:
        return f"its term {taken[0]!r} has the name of another metric"
    if objective.accuracy in METRICS:
        return f"accuracy={objective.accuracy!r} is the name of another metric, must be a new name"
    return ""
