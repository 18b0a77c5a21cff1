"""One training step: attack the input, then perturb the weights and update at the perturbed weights."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from rwp_jax.attacks.pgd import forward_in_mode, pgd_steps
from rwp_jax.attacks.threat_model import ThreatModel
from rwp_jax.models.classifier import Classifier
from rwp_jax.training.mixing import mixed_batch
from rwp_jax.training.objective import Batch, Mixed, Objective, attack_labels, own_loss
from rwp_jax.training.weight_ascent import Perturbed, perturb_and_differentiate
from rwp_jax.training.weight_averaging import Average, Averaging, averaged
from rwp_jax.training.weight_perturbation import WeightPerturbation, perturbed_norm

# Metrics of every step; an objective adds its accuracy and terms.
METRICS = {
    "loss",
    "gate_open",
    "perturbation_steps",
    "perturbation_norm",
    "learning_rate",
}


class TrainState(flax.struct.PyTreeNode):
    """Everything that a step changes; identical on all devices."""

    step: jnp.ndarray
    params: Any
    batch_stats: Any
    opt_state: Any
    ema: Average | None = None


class Metrics(flax.struct.PyTreeNode):
    """Scalar metrics of a step, in one array [n] so that they are fetched at once."""

    values: jnp.ndarray
    names: tuple[str, ...] = flax.struct.field(pytree_node=False)

    @classmethod
    def of(cls, figures: dict[str, Any], dtype: str) -> "Metrics":
        """Collects scalars by name; `dtype` must represent batch sizes exactly."""
        return cls(jnp.stack([jnp.asarray(f, dtype) for f in figures.values()]), tuple(figures))


def fetched(steps: Sequence[Metrics | dict]) -> list[dict]:
    """Returns the metrics of steps as dicts on the host; dicts are returned as they are."""
    steps = jax.device_get(steps)
    return [s if isinstance(s, dict) else dict(zip(s.names, s.values, strict=True)) for s in steps]


class TrainingSet(NamedTuple):
    """All training examples, on the host or on every device: images uint8 [N, H, W, C], labels int32 [N],
    -1 for "no label", and the weight of each example's loss, float [N]. Streamed images are None."""

    images: jax.Array | np.ndarray | None
    labels: jax.Array | np.ndarray
    weights: jax.Array | np.ndarray


class PGDSettings(NamedTuple):
    """Settings of the training attack: K1 steps of size step_size, BN mode `train`, `batch` or `eval`."""

    steps: int
    step_size: float
    bn: str


class Recipe(NamedTuple):
    """The parts and settings of a training step.

    `perturb_from_step` is the first step that perturbs weights; `averaging` holds settings of the averaged
    weights, by default none; `gradient_dtype` is the dtype in which gradients are summed over devices, ""
    for no conversion; `per_device_batch_norm` is whether each device has its own batch moments.
    """

    classifier: Classifier
    objective: Objective
    threat_model: ThreatModel
    attack: PGDSettings
    perturbation: WeightPerturbation
    perturb_from_step: int
    optimizer: optax.GradientTransformation
    averaging: Averaging = Averaging()
    gradient_dtype: str = ""
    per_device_batch_norm: bool = False


def init_state(recipe: Recipe, key, image_shape: tuple[int, int, int]) -> TrainState:
    """Returns the initial state for images [H, W, C]."""
    params, batch_stats = recipe.classifier.init(key, image_shape)
    opt_state = recipe.optimizer.init(params)
    # Copies: a step may reuse the buffers of its input state.
    ema = jax.tree.map(jnp.copy, Average(params, batch_stats)) if recipe.averaging.decay else None
    return TrainState(jnp.zeros((), jnp.int32), params, batch_stats, opt_state, ema)


def _max_steps(recipe: Recipe, step):
    """Returns K2 from the first perturbing step on, 0 before."""
    return jnp.where(step >= recipe.perturb_from_step, recipe.perturbation.steps, 0)


def attack_batch(
    recipe: Recipe, state: TrainState, x, y, start, axis_name, mixed: Mixed | None = None
):
    """Returns the training attack's perturbation of x, and the running statistics after its forwards.

    Args: as in `attack_and_update`.
    """
    objective, attack = recipe.objective, recipe.attack
    if objective.attack_loss is None:
        return jnp.zeros_like(x), state.batch_stats
    forward = forward_in_mode(recipe.classifier, state.params, attack.bn)
    devices = lax.axis_size(axis_name) if axis_name else 1
    labels = attack_labels(y, mixed)
    return pgd_steps(
        forward,
        objective.attack_loss(lambda images: forward(images, state.batch_stats)[0], x, *labels),
        recipe.threat_model,
        x,
        start,
        state.batch_stats,
        step_size=attack.step_size,
        steps=attack.steps,
        global_batch_size=len(x) * devices,
    )


def _labelled_share(y, dtype, axis_name):
    """Returns the fraction of the global batch whose label is not -1."""
    share = jnp.mean(y >= 0, dtype=dtype)
    return lax.pmean(share, axis_name) if axis_name else share


def attack_and_update(
    recipe: Recipe,
    state: TrainState,
    x,
    y,
    start,
    axis_name: str | None = None,
    weight=1.0,
    mixed: Mixed | None = None,
) -> tuple[TrainState, Any, Perturbed]:
    """Runs a step on given images, labels and random starts (Algorithm 1 of the paper).

    Args:
      recipe: see `Recipe`.
      state: state before the step.
      x: this device's clean images [B, H, W, C] in [0, 1].
      y: their labels [B], -1 for "no label".
      start: initial perturbation of the attack, of the shape of x.
      axis_name: mapped axis over which the batch is split, None on a single device.
      weight: weight of each example's loss, [B] or one number.
      mixed: see `Batch`.

    Returns:
      The state after the step, the attack's perturbation of x, and the perturbation of the weights.
    """
    delta, batch_stats = attack_batch(recipe, state, x, y, start, axis_name, mixed)
    batch = Batch(x, x + delta, y, weight, _labelled_share(y, x.dtype, axis_name), mixed)
    perturbed = perturb_and_differentiate(
        lambda params: recipe.objective.per_example(recipe.classifier.train, params, batch),
        state.params,
        recipe.perturbation,
        gate_loss=own_loss,
        max_steps=_max_steps(recipe, state.step),
        axis_name=axis_name,
        gradient_dtype=recipe.gradient_dtype,
    )

    fold = recipe.classifier.fold
    if recipe.objective.attack_loss and recipe.attack.bn == "train":
        # The reference's attack runs one more forward on its final delta: the loop's at v = 0.
        batch_stats = fold(batch_stats, perturbed.aux_unperturbed.moments[0])
    for moments in perturbed.aux.moments:
        batch_stats = fold(batch_stats, moments)
    if axis_name and recipe.per_device_batch_norm:
        batch_stats = lax.pmean(batch_stats, axis_name)

    # SGD at w + v (weight decay too); adding the updates to w instead of w + v removes v.
    w_plus_v = jax.tree.map(jnp.add, state.params, perturbed.v)
    updates, opt_state = recipe.optimizer.update(perturbed.gradient, state.opt_state, w_plus_v)
    params = optax.apply_updates(state.params, updates)
    ema = state.ema
    if ema is not None:
        ema = averaged(ema, params, batch_stats, recipe.averaging, state.step)
    return TrainState(state.step + 1, params, batch_stats, opt_state, ema), delta, perturbed


def make_train_step(
    recipe: Recipe,
    augment: Callable,
    learning_rate: Callable,
    axis_name: str | None = None,
    cutmix: Callable | None = None,
) -> Callable:
    """Makes the step that the trainer maps over devices.

    Args:
      recipe: see `Recipe`.
      augment: (keys [B], images uint8 [B, H, W, C]) -> images of the same kind.
      learning_rate: step -> learning rate, for the metrics.
      axis_name: mapped axis over which the batch is split, None on a single device.
      cutmix: see `mixing.mixed_batch`; None for no CutMix.

    Returns:
      (state, TrainingSet, indices, key, images=None) -> (state, metrics), where indices [B] are this
      device's part of the batch, key is the run's and images, uint8 [B, H, W, C], are those of the batch
      if the training set has none. All randomness is drawn per example from (key, step, position in the
      global batch), so that it does not depend on the number of devices. Metrics are scalars over the
      global batch.
    """

    def train_step(state, data, indices, key, images=None):
        batch_size = len(indices)
        position = jnp.arange(batch_size)
        if axis_name:
            position += lax.axis_index(axis_name) * batch_size
        step_key = jax.random.fold_in(key, state.step)
        keys = jax.vmap(lambda i: jax.random.split(jax.random.fold_in(step_key, i)))(position)

        dtype = jax.tree.leaves(state.params)[0].dtype
        images = data.images[indices] if images is None else images
        y, weight, mixed = data.labels[indices], data.weights[indices], None
        if cutmix is None:
            images = augment(keys[:, 0], images)
        else:
            batch = images, y, weight
            batch = mixed_batch(cutmix, augment, *batch, position, step_key, axis_name)
            images, y, weight, mixed = batch
        x = images.astype(dtype) / 255
        start = recipe.threat_model.sample(keys[:, 1], x)
        new_state, _, perturbed = attack_and_update(
            recipe, state, x, y, start, axis_name, weight.astype(dtype), mixed
        )

        def mean(values):
            local = jnp.mean(values.astype(dtype))  # devices hold equal parts of the batch
            return lax.pmean(local, axis_name) if axis_name else local

        norm = functools.partial(perturbed_norm, mask=recipe.perturbation.mask)
        aux, labelled = perturbed.aux_unperturbed, _labelled_share(y, dtype, axis_name)
        metrics = {
            "loss": mean(perturbed.loss),
            **{name: mean(values) for name, values in perturbed.aux.terms.items()},
            recipe.objective.accuracy: mean(aux.correct) / jnp.where(labelled > 0, labelled, 1),
            # Before the first perturbing step, the gate is not used.
            "gate_open": jnp.where(_max_steps(recipe, state.step) > 0, perturbed.gate_open, 0),
            "perturbation_steps": perturbed.steps,
            "perturbation_norm": norm(perturbed.v) / norm(state.params),
            "learning_rate": learning_rate(state.step),
        }
        return new_state, metrics

    return train_step
