"""What of its config a run may change when it goes on, and the record of the change."""

import pathlib
from collections.abc import Callable
from typing import Any

from rwp_jax.errors import InputError
from rwp_jax.runs import history, layout
from rwp_jax.runs.checkpoint import Checkpoints
from rwp_jax.runs.config import EVALUATED, changed, flatten
from rwp_jax.runs.history import Change, History
from rwp_jax.runs.resume_point import Position
from rwp_jax.version import described

_MOMENTUM = ("optimizer.momentum", "optimizer.cycle_momentum")
_FRESH = "init_from= begins a new run with its weights"


def _why_not(key: str, old: Any, new: Any) -> str:
    """Explains why the saved state cannot go on with another value of a key; "" if it can."""
    if key.startswith("model."):
        return "its weights are those of the other network"
    if key == "self_training.epochs":
        return "its extra images were labelled by the first stage"
    if key == "dtype" and "float64" in (old, new):
        return f"its weights have another dtype; {_FRESH}"
    if key == "ema_decay" and not (old and new):
        return f"its checkpoints hold {'an' if old else 'no'} average of the weights; {_FRESH}"
    return ""


def _momentum(config: dict[str, Any]) -> bool:
    """Returns whether the checkpoints of a run with this config, by dotted key, hold a momentum."""
    return any(config.get(key) for key in _MOMENTUM)


def _next(newest: dict[str, Any] | None, before: History) -> tuple[Position, int, int]:
    """Returns where a run goes on, and the epochs and steps before its next change, but see `continued`.

    The steps of an epoch in progress are counted as far as they are done.
    """
    position = Position.after(newest) if newest else Position()
    last = before.changes[-1:]
    # Epochs before an earlier change are repeated as they were if their checkpoints are damaged.
    if last and last[0].after_epochs > position.next_epoch:
        return Position(), last[0].after_epochs, last[0].after_steps
    return position, position.next_epoch, newest["step"] if newest else 0


def _refusal(directory: pathlib.Path, keys: dict[str, list], config: dict[str, Any]) -> str:
    """Explains why a run cannot go on with this config, of which `keys` changed; "" if it can."""
    newest = Checkpoints(directory).newest()
    position, done, _ = _next(newest, history.read(directory)[1])
    wanted, epochs = flatten(config), config["epochs"]
    held = _momentum(wanted | {key: old for key, (old, _) in keys.items()})
    for key, (old, new) in keys.items():
        why = _why_not(key, old, new)
        if key in _MOMENTUM and held != _momentum(wanted):
            why = f"its checkpoints hold {'a' if held else 'no'} momentum; {_FRESH}"
        data = key.startswith("data.") or key == "extra_data.use_labels"
        if newest and data and "data" not in newest:
            why = "its checkpoints have no digests that would identify the data"
        if why:
            return f"cannot go on with config.{key}={new!r} (was {old!r}): {why}"
    if epochs <= done:
        what = "epochs that are done" + " or begun" * bool(position.steps)
        return f"cannot go on with config.epochs={epochs}: it must be more than the {done} {what}"
    return ""


def check(workdir: pathlib.Path, config: dict, resume: bool, extend: bool = False) -> bool:
    """Checks whether the directory holds a run that goes on with this config; changes nothing.

    Keys that only the evaluation uses may differ. If `extend`, so may all others that leave the saved state
    meaningful; the data are compared by `identity.check_records`.

    Args:
      workdir: directory of the run, which need not exist.
      config: config of the run, as nested dicts of JSON values.
      resume: whether an existing run may be continued.
      extend: whether its config may have changed; there must be a run then.

    Returns:
      True if there is a run to continue, False if the directory is free.

    Raises:
      InputError: as `layout.check` does, or if the run cannot be extended in this way.
    """
    if extend and not resume:
        raise InputError("extend= continues a run, but resume is off")
    try:
        found = layout.check(workdir, config, resume)
    except layout.OtherConfig as error:
        if not extend and error.changed.keys() <= EVALUATED:
            layout.check_resumed(workdir, resume)
            return True
        why = _refusal(workdir, error.changed, config)
        if extend and why:
            raise InputError(f"workdir={workdir} {why}") from None
        if not extend and not why:
            raise InputError(f"{error}, or continue it with these changes by extend=") from None
        if not extend:
            raise
        return True
    if extend and not found:
        raise InputError(f"workdir={workdir} holds no run that extend= could continue")
    return found


def continued(
    directory: pathlib.Path,
    config: dict,
    checkpoints: Checkpoints,
    steps_per_epoch: Callable[[dict[str, Any]], int],
) -> History:
    """Returns the history of a run that goes on with this config; writes nothing.

    A change applies from the first epoch of which no step is done: an epoch in progress is finished as it
    began.

    Args:
      directory: directory of the run, for which `check` passes.
      config: config that it goes on with, as nested dicts of JSON values.
      checkpoints: its checkpoints.
      steps_per_epoch: config by dotted key -> number of training steps of an epoch.
    """
    held, before = history.read(directory)
    wanted = flatten(config)
    keys = changed(flatten(held), wanted)
    if not keys:
        return before
    position, epochs, steps = _next(checkpoints.newest(), before)
    changes = lambda: (*before.changes, Change(epochs, steps, keys, described()))
    if position.steps:
        own = History(changes()).config_at(wanted, position.epoch)
        steps += steps_per_epoch(own) - len(position.steps)
    return before._replace(changes=changes())
