"""Our side: the library's training step, with intermediate values recorded."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from rwp_jax.parity.live.setting import CLASSES, NORMS, PERTURBATIONS, Setting
from rwp_jax.parity.live.trace import Step, ascent, by_step, thin
from rwp_jax.parity.recipe import make_network, make_recipe
from rwp_jax.pytorch.state_dict import to_state_dict
from rwp_jax.training.train_step import Recipe, TrainState, attack_and_update
from rwp_jax.training.weight_perturbation import is_perturbed


class Program(NamedTuple):
    """A compiled training step.

    Attributes:
      state: the state before the first step.
      step: (state, x, y, start, index of the norm, index of the perturbation) -> (state, loss [B]).
      logits: (state, images) -> logits in eval mode.
      noted: intermediate values of a step, by name; cleared before each step.
    """

    state: TrainState
    step: Callable
    logits: Callable
    noted: dict[str, list[Any]]


def _either(index, choices: list, *fields: str):
    """Returns choices[0] with its functions `fields` taken from choices[index]; index is traced."""

    def choose(field):
        functions = [getattr(choice, field) for choice in choices]
        return lambda *args: lax.switch(index, functions, *args)

    chosen = {field: choose(field) for field in fields}
    first = choices[0]
    return (
        first._replace(**chosen)
        if hasattr(first, "_replace")
        else dataclasses.replace(first, **chosen)
    )


def _choose(recipes: dict[tuple[str, str], Recipe], norm, perturbation) -> Recipe:
    """Builds the recipe of a norm and perturbation; both are traced indices."""
    by_norm = list({name: recipe for (name, _), recipe in recipes.items()}.values())
    by_name = list({name: recipe for (_, name), recipe in recipes.items()}.values())
    alphas = jnp.asarray([recipe.attack.step_size for recipe in by_norm])
    ascents = jnp.asarray([recipe.perturbation.steps for recipe in by_name])
    first = by_norm[0]
    perturbations = [recipe.perturbation for recipe in by_name]

    def scale(params):
        scales = [lambda w, d, p=p: p.scale(w)(d) for p in perturbations]
        return lambda direction: lax.switch(perturbation, scales, params, direction)

    return first._replace(
        threat_model=_either(norm, [r.threat_model for r in by_norm], "step", "project"),
        attack=first.attack._replace(step_size=alphas[norm]),
        perturbation=_either(perturbation, perturbations, "gate", "accumulate")._replace(
            steps=ascents[perturbation], scale=scale
        ),
    )


def _watched(recipe: Recipe, note: Callable) -> Recipe:
    """Returns the recipe with note(name, value) called on the host for every intermediate value.

    These are the attack's `delta` and the weight perturbation's `v` and `gates`.
    """

    def watch(function, name):
        def watched(*args):
            value = function(*args)
            jax.debug.callback(lambda v: note(name, v), value, ordered=True)
            return value

        return watched

    threat_model, perturbation = recipe.threat_model, recipe.perturbation
    project = watch(threat_model.project, "delta")
    return recipe._replace(
        threat_model=dataclasses.replace(threat_model, project=project),
        perturbation=perturbation._replace(
            scale=lambda params: watch(perturbation.scale(params), "v"),
            gate=watch(perturbation.gate, "gates"),
        ),
    )


@functools.cache
def _program(objective: str, model: str, dtype: str) -> Program:
    """Compiles one program for all norms and perturbations: compiling takes longer than the steps."""
    settings = {
        (norm, name): Setting(objective, name, model, norm, 1)
        for norm in NORMS[objective]
        for name in PERTURBATIONS
    }
    any_setting = next(iter(settings.values()))
    image_shape = any_setting.draws(0).x.shape[1:]
    network = make_network(any_setting.constants(), image_shape, CLASSES, dtype)
    recipes = {
        key: make_recipe(setting.constants(), network.classifier, objective, setting.perturbation)
        for key, setting in settings.items()
    }
    noted = {"delta": [], "v": [], "gates": []}

    def note(name, value):
        if name == "v":  # thinned right away to save memory
            entries = to_state_dict(model, value)
            value = thin({n: entry for n, entry in entries.items() if is_perturbed(entry)})
        noted[name].append(value)

    @jax.jit
    def step(state, x, y, start, norm, perturbation):
        recipe = _watched(_choose(recipes, norm, perturbation), note)
        state, _, perturbed = attack_and_update(recipe, state, x, y, start)
        return state, perturbed.loss

    @jax.jit
    def logits(state, images):
        return network.classifier.eval(state.params, state.batch_stats, images)

    optimizer = next(iter(recipes.values())).optimizer
    state = TrainState(
        jnp.zeros((), jnp.int32),
        network.params,
        network.batch_stats,
        optimizer.init(network.params),
    )
    return Program(state, step, logits, noted)


def our_steps(setting: Setting, dtype: str) -> list[Step]:
    """Runs the training steps of a setting in `dtype`, float64 or float32; returns what they computed.

    The first item holds only the logits before the first step. The flag jax_enable_x64 must be on, or the
    recorded values would be rounded to float32. For float32 it is switched off inside, so that nothing is
    computed more precisely than in a training run.
    """
    with jax.enable_x64(dtype == "float64"), jax.default_matmul_precision("highest"):
        return list(_steps(setting, dtype))


def _steps(setting: Setting, dtype: str) -> Iterator[Step]:
    program = _program(setting.objective, setting.model, dtype)
    named = lambda tree, collection="params": to_state_dict(setting.model, tree, collection)
    norm = NORMS[setting.objective].index(setting.norm)
    perturbation = PERTURBATIONS.index(setting.perturbation)
    first = setting.draws(0).x.astype(dtype)
    state = program.state
    yield {"logits": by_step([program.logits(state, first)])}
    for s in range(setting.steps):
        for values in program.noted.values():
            values.clear()
        draws = setting.draws(s)
        x, start = draws.x.astype(dtype), draws.start.astype(dtype)
        state, loss = program.step(state, x, draws.y, start, norm, perturbation)
        jax.effects_barrier()
        v, gates = program.noted["v"], [int(gate.sum()) for gate in program.noted["gates"]]
        v = v[:-1]  # v is scaled once more after the loop
        # v is zero at step 0. The loop ends when no gate is open; v then stays for the remaining steps.
        ascents = {"none": 0, "awp": 1, "rwp": setting.constants()["rwp_steps"]}
        left = ascents[setting.perturbation] + 1 - len(v)
        v, gates = v + v[-1:] * left, gates + gates[-1:] * left
        yield {
            "logits": by_step([program.logits(state, first)]),
            "delta": by_step([start, *program.noted["delta"]]),
            "gates": by_step([gates[:-1]]) if setting.perturbation == "rwp" else {},
            "v": ascent(v[1:]),
            "loss": by_step([np.mean(loss)]),
            "weights": named(state.params),
            "momentum": named(optax.tree.get(state.opt_state, "trace")),
            "statistics": named(state.batch_stats, "batch_stats"),
        }
