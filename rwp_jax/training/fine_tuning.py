"""Begins a run with given weights: checks that they fit its network and puts them into its first state."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from rwp_jax.data.sources import Dataset
from rwp_jax.distributed import processes
from rwp_jax.errors import InputError
from rwp_jax.models.classifier import make_classifier
from rwp_jax.names import by_path
from rwp_jax.runs import history
from rwp_jax.runs.checkpoint import Checkpoints
from rwp_jax.runs.history import History
from rwp_jax.runs.initial_weights import InitialWeights
from rwp_jax.training.recipe import param_dtype
from rwp_jax.training.train_step import TrainState
from rwp_jax.training.weight_averaging import Average


def history_of(initial: InitialWeights | None) -> History:
    """Returns the history of a run that begins with the given weights, or with drawn ones."""
    return History(init_from=initial.record() if initial else None)


def check_given(directory: pathlib.Path, resuming: bool, initial: InitialWeights | None) -> None:
    """Raises InputError if a run that goes on began with other weights, or needs them once more."""
    if initial is not None and not isinstance(initial, InitialWeights):
        raise InputError(
            f"init_from= is a {type(initial).__name__}, must be from rwp_jax.initial_weights"
        )
    if not resuming:
        return
    begun = history.read(directory)[1].init_from
    leave_out = "leave init_from= out to continue it, or choose another directory"
    if initial and begun is None:
        raise InputError(
            f"init_from={initial.source}: the run in workdir={directory} began with drawn weights; "
            f"{leave_out}"
        )
    if initial and begun and begun.get("digest") != initial.digest():
        raise InputError(
            f"init_from={initial.source} has other weights than {begun.get('source')} had when the run in "
            f"workdir={directory} began with them; {leave_out}"
        )
    if not initial and begun and not Checkpoints(directory).newest():
        raise InputError(
            f"workdir={directory} was stopped before it saved the weights that it begins with: give "
            f"init_from={begun.get('source')} again"
        )


def _network(config, num_classes: int, image_shape: tuple[int, ...]):
    """Returns params and batch_stats of the config's network as ShapeDtypeStructs."""
    classifier = make_classifier(config.model.name, num_classes, dtype=param_dtype(config))
    return classifier.shapes(image_shape)


def head(config, num_classes: int, image_shape: tuple[int, ...]) -> set[str]:
    """Returns the names of the entries of params whose shapes depend on the number of classes."""
    here, other = (
        by_path(_network(config, count, image_shape)[0]) for count in (num_classes, num_classes + 1)
    )
    return {name for name in here if name not in other or here[name].shape != other[name].shape}


def check_fit(
    config, initial: InitialWeights, num_classes: int, image_shape: tuple[int, ...]
) -> list[str]:
    """Checks that the weights fit the config's network, except for its classifier head.

    Args:
      config: config of the run.
      initial: the weights.
      num_classes: number of classes of the run's data.
      image_shape: (H, W, C) of its images.

    Returns:
      The names of the head's entries if its number of classes is another, so that it is to be drawn; else
      nothing.

    Raises:
      InputError: naming the first entry that does not fit, or is not finite.
    """
    fresh = sorted(head(config, num_classes, image_shape)) * (initial.num_classes != num_classes)
    params, batch_stats = _network(config, num_classes, image_shape)
    where = f"init_from={initial.source} does not fit config.model.name={config.model.name!r}"
    for here, there in ((params, initial.params), (batch_stats, initial.batch_stats)):
        wanted, held = by_path(here), by_path(there)
        for name in [*wanted, *(held.keys() - wanted)]:
            if name in fresh:
                continue
            shapes = [list(t[name].shape) if name in t else "missing" for t in (held, wanted)]
            if shapes[0] != shapes[1]:
                raise InputError(
                    f"{where} and the data: {name} is {shapes[0]} there, {shapes[1]} here"
                )
            with np.errstate(over="ignore"):
                if not np.isfinite(np.asarray(held[name]).astype(wanted[name].dtype)).all():
                    raise InputError(f"{where}: {name} has entries that are not finite")
    return fresh


def begun_with(config, initial: InitialWeights, state: TrainState, data: Dataset) -> TrainState:
    """Returns a run's first state with the given weights, and says what they are.

    Args:
      config: config of the run.
      initial: weights that fit, see `check_fit`.
      state: state with drawn weights.
      data: data set of the run.
    """
    fresh = check_fit(config, initial, data.num_classes, data.x_train.shape[1:])
    for line in _remarks(config, initial, data.num_classes, fresh):
        processes.say(line)

    def filled(here, there):
        held = by_path(there)
        leaves = [
            leaf if name in fresh else jnp.asarray(held[name], leaf.dtype)
            for name, leaf in by_path(here).items()
        ]
        return jax.tree.unflatten(jax.tree.structure(here), leaves)

    params = filled(state.params, initial.params)
    batch_stats = filled(state.batch_stats, initial.batch_stats)
    ema = jax.tree.map(jnp.copy, Average(params, batch_stats)) if state.ema is not None else None
    return state.replace(params=params, batch_stats=batch_stats, ema=ema)


def _remarks(config, initial: InitialWeights, num_classes: int, fresh: list[str]) -> list[str]:
    """Returns lines on the given weights and on what differs between their network and the run's."""
    lines = [f"beginning with the weights of {initial.source} {initial.checkpoint}".rstrip()]
    if fresh:
        lines.append(
            f"{initial.source} has {initial.num_classes} classes, the data have {num_classes}: "
            f"{' and '.join(fresh)} are drawn from config.seed"
        )
    own = tuple(config.model.mean), tuple(config.model.std)
    if initial.mean is not None and (initial.mean, initial.std) != own:
        lines.append(
            f"{initial.source} normalises pixels by mean {initial.mean} and deviation {initial.std}, this "
            f"run by config.model.mean={own[0]} and config.model.std={own[1]}"
        )
    if initial.activation not in (None, config.model.activation):
        lines.append(
            f"{initial.source} has config.model.activation={initial.activation!r}, this run "
            f"{config.model.activation!r}"
        )
    return lines
