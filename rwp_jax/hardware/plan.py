"""Computes what a run needs at least on absent hardware: memory, time and device-hours."""

import contextlib
import math
import sys
from collections.abc import Callable
from typing import NamedTuple

from rwp_jax.data.sources import DataSize
from rwp_jax.errors import check_path
from rwp_jax.hardware import cost, counts
from rwp_jax.hardware.datasheets import GIB
from rwp_jax.hardware.programs import (
    CompiledProgram,
    DoesNotFit,
    check_dtype,
    compile_programs,
    does_not_fit,
)
from rwp_jax.hardware.topology import Hardware, find_hardware, only_compile
from rwp_jax.models.classifier import MODELS
from rwp_jax.training import experiment
from rwp_jax.training.recipe import weight_perturbation_of
from rwp_jax.training.self_training import teacher_config

# Share of a GPU's memory that JAX takes unless XLA_PYTHON_CLIENT_MEM_FRACTION is set.
PREALLOCATED = 0.75


class Floors(NamedTuple):
    """Minimum time that training takes.

    Attributes:
      k: weight-ascent steps in every training step that may perturb.
      step: seconds of a training step that perturbs k times.
      epoch: seconds of an epoch of such steps, including evaluation.
      evaluation: seconds of evaluation per epoch; an evaluation every N epochs is spread over the N.
      run: seconds of the run, without RST's first stage.
      collectives: number of collectives in such a step, most of which wait for each other.
      operand_bytes: bytes of their operands on a device.
    """

    k: int
    step: float
    epoch: float
    evaluation: float
    run: float
    collectives: int
    operand_bytes: int


class Plan(NamedTuple):
    """Minimum needs of a run on given hardware.

    Attributes:
      hardware: the hardware.
      memory: bytes that a device needs, including data sets and both programs.
      epochs: number of epochs, without RST's first stage.
      first_stage: minimum seconds of RST's first stage, 0 if there is none.
      floors: for k = 0 and, if K2 is not 0, for k = K2.
      programs: compiled programs `train` and `evaluate`.
    """

    hardware: Hardware
    memory: float
    epochs: int
    first_stage: float
    floors: list[Floors]
    programs: dict[str, CompiledProgram]


def make_plan(config, hardware: Hardware, evaluate: CompiledProgram | None = None) -> Plan:
    """Compiles a run's training step and evaluation and computes what the run needs.

    Args:
      config: the run's config.
      hardware: hardware to compile for.
      evaluate: the compiled evaluation, if there is one already.

    Raises:
      InputError: for invalid values of the config.
      DoesNotFit: if the memory is insufficient; the message states which batch size would fit.
    """
    check(config, hardware)
    config = experiment.filled(config, hardware.platform, hardware.devices)
    # The training step comes first: the evaluation takes the TPU compiler minutes.
    train = _fitting(config, hardware, "batch_size", _train)
    if evaluate is None:
        evaluate = _fitting(config, hardware, "evaluation.batch_size", _evaluate)
    plan = _plan(config, hardware, evaluate, train)
    if config.self_training.epochs:
        first = _plan(teacher_config(config), hardware, evaluate)
        plan = plan._replace(first_stage=first.floors[0].run, memory=max(plan.memory, first.memory))
    return plan


def check(config, hardware: Hardware) -> None:
    """Checks all that can be checked before anything is compiled; raises InputError if it fails."""
    experiment.check_config(config, hardware.devices)
    check_dtype(config, hardware)
    cost.check(config)
    if config.self_training.epochs:
        cost.check(teacher_config(config))


def _plan(
    config, hardware: Hardware, evaluate: CompiledProgram, train: CompiledProgram | None = None
) -> Plan:
    """Plans one stage with a compiled evaluation and, if given, a compiled training step."""

    def compile_train(config, hardware):
        held = train if train and train.batch_size == config.batch_size else None
        programs = {"evaluate": evaluate, "train": held or _train(config, hardware)}
        memory = _memory(config, programs)
        if memory > hardware.chip.memory:
            raise does_not_fit("training", memory, hardware)
        return programs, memory

    programs, memory = _fitting(config, hardware, "batch_size", compile_train)
    most = weight_perturbation_of(config).steps if cost.perturbed_epochs(config) else 0
    floors = [_floors(config, programs, k) for k in sorted({0, most})]
    return Plan(hardware, memory, config.epochs, 0.0, floors, programs)


def _one(config, hardware: Hardware, program: str) -> CompiledProgram:
    return next(compile_programs(config, hardware, program))


def _train(config, hardware: Hardware) -> CompiledProgram:
    return _one(config, hardware, "train")


def _evaluate(config, hardware: Hardware) -> CompiledProgram:
    return _one(config, hardware, "evaluate")


def _memory(config, programs: dict[str, CompiledProgram]) -> float:
    """Returns the bytes that stay on a device plus the further needs of the larger of the two programs."""
    size: DataSize = cost.data_size(config)
    image = math.prod(size.image_shape) + 4  # and its label
    resident = programs["train"].arguments + image * sum(cost.evaluated_examples(config))
    return resident + max(program.memory - program.arguments for program in programs.values())


def _floors(config, programs, k: int) -> Floors:
    parts = programs["train"].parts
    trips = {"attack": config.attack.steps, "perturb": k + 1}
    step, unperturbed = (counts.seconds(parts, trips | {"perturb": n + 1}) for n in (k, 0))
    batch = lambda steps: counts.seconds(programs["evaluate"].parts, {"attack": steps})
    size, held_out = config.evaluation.batch_size, config.data.validation_examples
    batches = sum(math.ceil(count / size) for count in cost.evaluated_examples(config))
    on_held_out, validating = math.ceil(held_out / size), cost.validation_steps(config)
    evaluation = (batches - on_held_out) * batch(config.evaluation.steps)
    evaluation += on_held_out * batch(validating)
    evaluation *= 2 if config.ema_decay else 1
    evaluation *= cost.evaluations(config) / config.epochs
    steps, perturbed = cost.planned_mixture(config).steps, cost.perturbed_epochs(config)
    run = config.epochs * evaluation
    run += steps * (perturbed * step + (config.epochs - perturbed) * unperturbed)
    collectives = counts.collectives(parts, trips)
    return Floors(k, step, steps * step + evaluation, evaluation, run, *collectives)


def _fitting(config, hardware: Hardware, key: str, compile: Callable):
    """Returns compile(config, hardware); if it does not fit, raises DoesNotFit with a size that would.

    Args:
      config: the run's config.
      hardware: hardware to compile for.
      key: config key of the batch size, of which halves, quarters, ... are tried.
      compile: function that raises DoesNotFit.
    """
    try:
        return compile(config, hardware)
    except DoesNotFit as error:
        needed, message = error.needed, str(error)
    size = config.to_dict()
    for part in key.split("."):
        size = size[part]
    smaller, half, hint = config.copy_and_resolve_references(), size, ""
    while not hint and half % (2 * hardware.devices) == 0:
        half //= 2
        # Memory shrinks at most in proportion to the batch: skip sizes that are far too large.
        if needed * half / size > 2 * hardware.chip.memory:
            continue
        smaller.update_from_flattened_dict({key: half})
        with contextlib.suppress(DoesNotFit):
            compile(smaller, hardware)
            hint = f"the largest batch that fits is {half}, as far as halving goes"
    if not hint:
        hint = "halving it does not help" if half < size else "it cannot be halved over the devices"
    if key == "batch_size" and not config.remat and not MODELS.origin(config.model.name):
        hint += ", and config.remat=True needs less memory"
    raise DoesNotFit(f"{message}, with config.{key}={size}; {hint}", needed)


def print_plan(config, target: str, devices: int | None) -> None:
    """`main.py --mode plan`: prints whether a run fits and what it needs at least; runs nothing.

    Raises:
      InputError: for invalid hardware or config, or if the run does not fit.
    """
    only_compile()
    hardware = find_hardware(target, devices)
    check(config, hardware)
    path = config.extra_data.path
    if path and not check_path("config.extra_data.path", path).exists():
        print(
            f"config.extra_data.path={path} does not exist: counted as {cost.PUBLISHED_EXTRA:,} images"
        )
    print(f"compiling for {hardware.devices} x {hardware.chip.name}", file=sys.stderr, flush=True)
    print(describe(make_plan(config, hardware)))


def describe(plan: Plan) -> str:
    """Describes a plan in text for a terminal."""
    hardware, chip = plan.hardware, plan.hardware.chip
    lines = []
    for floors in plan.floors:
        run = plan.first_stage + floors.run
        lines.append(
            f"at least {_duration(floors.step)} per step, {_duration(floors.epoch)} per epoch (of which "
            f"evaluation {_duration(floors.evaluation)}), {_duration(run)} for {plan.epochs} epochs, "
            f"{short(run * hardware.devices / 3600)} device-hours"
        )
    most = plan.floors[-1].k
    text = [
        f"{hardware.devices} x {chip.name}",
        f"fits: {plan.memory / GIB:.1f} of {chip.gigabytes} GB per device; {lines[0]}",
    ]
    if most:
        text[-1] += ", with k = 0"
        text.append(f"with k = {most}: {lines[1]}")
        text.append(
            "k, the mean number of weight-ascent steps per training step, is between 0 (no loss is "
            f"ever below c_min) and {most} (some loss stays below it in every step)."
        )
    if plan.first_stage:
        text.append(f"RST's first stage takes {_duration(plan.first_stage)} of the run.")
    if hardware.devices > 1:
        collectives = " to ".join(
            f"{floors.collectives}, {floors.operand_bytes / 1e6:.0f} MB in total (k = {floors.k})"
            for floors in plan.floors
        )
        text.append(f"Collectives per step: {collectives}. Floors do not include waiting for them.")
    text.append(
        "Times are floors: bytes and operations of the compiled programs at the data sheet's rates. "
        "Nothing was run."
    )
    if chip.gpu and plan.memory > PREALLOCATED * chip.gpu.memory:
        text.append(
            f"JAX takes {PREALLOCATED:.0%} of a GPU's memory by default, which is not enough here: set "
            "XLA_PYTHON_CLIENT_MEM_FRACTION=0.95"
        )
    return "\n".join(text)


def short(value: float) -> str:
    """Formats a value with two digits, or as a whole number from 10 on."""
    return f"{value:.0f}" if value >= 9.5 else f"{value:.2g}" if value >= 0.01 else "below 0.01"


def _duration(seconds: float) -> str:
    """Formats a duration in milliseconds, seconds or hours."""
    if seconds < 1:
        return f"{short(1e3 * seconds)} ms"
    return f"{short(seconds)} s" if seconds < 360 else f"{short(seconds / 3600)} h"
