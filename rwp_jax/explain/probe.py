"""A run's network on some of its training images, with the attack and the loss of its training."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from rwp_jax.errors import InputError
from rwp_jax.runs.loaded import load_run
from rwp_jax.runs.network_record import read_network_record
from rwp_jax.training import experiment
from rwp_jax.training.objective import Batch
from rwp_jax.training.objectives import OBJECTIVES
from rwp_jax.training.train_step import TrainState, attack_batch


class Probe(NamedTuple):
    """A network and N training images of its run, as one batch.

    Attributes:
      config: the run's config.
      epoch: the epoch after which the network was saved, from 0.
      params: the weights w.
      num_classes: number of classes.
      attacked: params -> x' [N, H, W, C], images after the training attack, with batch statistics of
        this batch and the same random starts in every call; clean images if training attacks none.
      per_example: (params, x') -> (loss [N], Aux) in training mode, with batch statistics of this batch.
      losses: (params, direction, distance) -> [N], the losses that the gate compares, with attack and
        loss both computed at params + distance * direction.
    """

    config: Any
    epoch: int
    params: Any
    num_classes: int
    attacked: Callable
    per_example: Callable
    losses: Callable


def make_probe(
    directory: pathlib.Path, which: str, examples: int, paths: Mapping[str, str] | None = None
) -> Probe:
    """Loads a run's checkpoint and a fixed choice of its training images.

    Args:
      directory: the run's directory.
      which: checkpoint, see `resume_point.WHICH`.
      examples: N; all training images if there are fewer.
      paths: see `load_run`.

    Raises:
      InputError: if the directory holds no run, the run lacks the checkpoint, or its data are missing.
    """
    run = load_run(directory, which, paths)
    config = run.config
    network = read_network_record(directory)
    if network and network.objective:
        OBJECTIVES.require(config.objective.name, network.objective, f"workdir={directory}")
    try:
        experiment.check_values(config, devices=1)
        data = run.data
        recipe = experiment.build(config, run.num_classes, steps_per_epoch=1).recipe
    except (AttributeError, KeyError) as error:
        raise InputError(
            f"{directory}: its config.json lacks a key that training needs ({error.args[0]})"
        ) from None
    chosen = np.random.default_rng(0).permutation(len(data.y_train))[:examples]
    # On one device there is no axis to share moments over; running statistics belong to w, not to w + v.
    attack = recipe.attack._replace(bn="batch")
    recipe = recipe._replace(classifier=run.classifier, attack=attack)
    params, batch_stats = jax.device_get((run.params, run.batch_stats))
    dtype = jax.tree.leaves(params)[0].dtype
    x, y = data.x_train[chosen].astype(dtype) / 255, data.y_train[chosen]

    def attacked(params):
        keys = jax.random.split(jax.random.key(config.seed), len(x))
        start = recipe.threat_model.sample(keys, x)
        state = TrainState(0, params, batch_stats, None)
        return x + attack_batch(recipe, state, x, y, start, None)[0]

    def per_example(params, x_adv):
        return recipe.objective.per_example(recipe.classifier.train, params, Batch(x, x_adv, y))

    @jax.jit
    def losses(params, direction, distance):
        moved = jax.tree.map(lambda w, d: w + distance.astype(w.dtype) * d, params, direction)
        return per_example(moved, attacked(moved))[1].gate_loss

    return Probe(config, run.epoch, params, run.num_classes, attacked, per_example, losses)


def gate_losses(probe: Probe) -> np.ndarray:
    """Returns the [N] losses at w that the gate compares, on adversarial examples against w."""
    nowhere = jax.tree.map(np.zeros_like, probe.params)
    with jax.default_matmul_precision("highest"):
        return np.asarray(probe.losses(probe.params, nowhere, np.float64(0)))
