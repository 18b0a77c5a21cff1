"""Exports a run's checkpoint to files that the authors' PyTorch classes load."""

import pathlib
from typing import Any

import jax
import numpy as np

from rwp_jax.errors import InputError
from rwp_jax.files import check_free
from rwp_jax.pytorch import contents, torch_files
from rwp_jax.pytorch.contents import CheckpointParts
from rwp_jax.pytorch.state_dict import check_has_names, to_state_dict, torch_names
from rwp_jax.runs import zoo
from rwp_jax.runs.finished_run import FinishedRun
from rwp_jax.runs.loaded import load_run
from rwp_jax.training.optimizer import decayed
from rwp_jax.training.recipe import momentum_of, schedule_of


def own_entries(run: FinishedRun) -> dict[str, np.ndarray]:
    """Returns the entries of the authors' classes without any wrapper, in their order."""
    name = run.config.model.name
    params, batch_stats = jax.device_get((run.params, run.batch_stats))
    entries = dict(to_state_dict(name, params))
    entries |= to_state_dict(name, batch_stats, "batch_stats")
    steps = np.array(run.saved.get("step", 0), np.int64)  # not stored in the zoo
    norms = [entry.rpartition(".")[0] for entry in entries if entry.endswith(".running_var")]
    entries |= {f"{norm}.num_batches_tracked": steps for norm in norms}
    return {entry: entries[entry] for entry in sorted(entries, key=contents.registration_order)}


def _with_sub_block(entries: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Inserts a copy of block1, `sub_block1`, after it, unless there is one."""
    first, copy = f"{prefix}block1.", f"{prefix}sub_block1."
    block = {n: value for n, value in entries.items() if n.startswith(first)}
    if not block:
        raise InputError("sub_block1= needs a WideResNet: this network has no block1")
    if any(n.startswith(copy) for n in entries):
        return entries
    whole = {}
    for n, value in entries.items():
        whole[n] = value
        if n == list(block)[-1]:
            whole |= {copy + b.removeprefix(first): v for b, v in block.items()}
    return whole


def _state_dict(
    run: FinishedRun, form: CheckpointParts | None, sub_block1: bool
) -> dict[str, np.ndarray]:
    entries, prefix = own_entries(run), ""
    if form:  # in the form of the checkpoint that the run was imported from
        prefix = form.prefix
        prefixes = prefix, *form.copies
        named = {p + name: value for p in prefixes for name, value in entries.items()} | form.aside
        entries = {name: named[name] for name in form.order}
    return _with_sub_block(entries, prefix) if sub_block1 else entries


def _trace(opt_state):
    """Finds the momentum in a saved optimiser state of nested lists and dicts; None if there is none."""
    if isinstance(opt_state, dict):
        return opt_state.get("trace")
    inner = opt_state if isinstance(opt_state, list) else []
    return next((found for found in map(_trace, inner) if found is not None), None)


def _optimizer(run: FinishedRun, names: list[str], prefix: str) -> dict[str, Any]:
    """Builds the state dict of a torch.optim.SGD over the parameters `names`."""
    config = run.config.optimizer
    trace = _trace(run.saved["opt_state"])
    momentum = dict(to_state_dict(run.config.model.name, trace)) if trace else {}
    by_index = {i: momentum.get(name.removeprefix(prefix)) for i, name in enumerate(names)}
    # Epochs before a change of the config may have had more or fewer steps.
    epochs_before, steps_before = run.history.begin(run.epoch)
    steps = int(run.saved["step"]) - steps_before
    per_epoch = steps // (run.epoch + 1 - epochs_before)
    last = epochs_before * per_epoch + steps - 1
    schedule = schedule_of(run.config, per_epoch, config.learning_rate)
    momentum_at = momentum_of(run.config, per_epoch)
    group = {
        "lr": float(schedule(last)),
        "momentum": float(momentum_at(last)) if callable(momentum_at) else momentum_at,
        "dampening": 0,
        "weight_decay": config.weight_decay,
        "nesterov": config.nesterov,
        "maximize": False,
        "foreach": None,
        "differentiable": False,
        "fused": None,
    }
    decays = dict(
        torch_names(run.config.model.name, decayed(run.params, config.no_decay), "params")
    )
    by_decay: dict[bool, list[int]] = {True: [], False: []}
    for i, name in enumerate(names):
        by_decay[decays.get(name.removeprefix(prefix), True)].append(i)
    groups = [group | {"params": by_decay[True]}]
    if by_decay[False]:
        groups.append(group | {"weight_decay": 0.0, "params": by_decay[False]})
    state = {i: {"momentum_buffer": b} for i, b in by_index.items() if b is not None}
    return {"state": state, "param_groups": groups}


def export_torch(
    directory: pathlib.Path,
    which: str | None,
    output: pathlib.Path,
    optimizer: pathlib.Path | None = None,
    sub_block1: bool = False,
) -> None:
    """Writes the network of a run as a PyTorch state dict.

    An imported run is exported with the names, order, wrapper and other entries of its original
    checkpoint. Other runs get the names of the authors' classes, with the number of steps as
    `num_batches_tracked`, which these networks do not read (0 for a network of the zoo).

    Args:
      directory: directory of the run, or `zoo:NAME`.
      which: checkpoint, see `load_run`.
      output: file to write: safetensors if its name ends so, else torch.save's format.
      optimizer: file for the state of torch.optim.SGD, with the last step's learning rate.
      sub_block1: whether to add the copy of block1 that the classes of RST and the original TRADES have
        and never use.

    Raises:
      InputError: for bad input, before anything is written.
    """
    check_free("output", output)
    if optimizer:
        check_free("torch_optimizer", optimizer)
    if optimizer and optimizer.suffix == torch_files.SAFETENSORS:
        raise InputError(
            f"torch_optimizer={optimizer}: safetensors cannot hold an optimiser's state"
        )
    if optimizer and optimizer.resolve() == output.resolve():
        raise InputError(f"output={output} and torch_optimizer= must be different files")
    if optimizer:
        zoo.refuse(directory, f"torch_optimizer={optimizer} needs the optimiser's state of a run")
    if optimizer and which and which.endswith("_ema"):
        raise InputError(
            f"torch_optimizer= needs trained weights, checkpoint={which} holds averaged ones"
        )
    run, form = load_run(directory, which), contents.load_aside(directory)
    check_has_names(run.config.model.name)
    entries = _state_dict(run, form, sub_block1)
    nested = form.nested if form and output.suffix != torch_files.SAFETENSORS else ""
    content: dict[str, Any] = entries
    for key in reversed(nested.split(".") if nested else []):
        content = {key: content}
    torch_files.write(output, content)
    if optimizer:
        prefix = form.prefix if form else ""
        names = contents.parameter_names(list(entries), form.copies if form else ())
        torch_files.write(optimizer, _optimizer(run, names, prefix))
    print(
        f"exported {directory} after epoch {run.epoch + 1}: {len(entries)} entries of "
        f"{run.config.model.name}; wrote {' and '.join(map(str, filter(None, [output, optimizer])))}"
    )
