"""What a run needs at least on hardware that is not there: memory, time, device-hours."""

import contextlib
import math
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import jax

from rwp_jax import cost
from rwp_jax.data.sizes import DataSize
from rwp_jax.errors import InputError
from rwp_jax.experiment import check_config, weight_perturbation_of
from rwp_jax.hardware import census
from rwp_jax.hardware.datasheets import GIB
from rwp_jax.hardware.programs import CompiledProgram, DoesNotFit, compile_programs
from rwp_jax.hardware.topology import Hardware, find_hardware, only_compile
from rwp_jax.self_training import teacher_config

# What JAX takes of a GPU's memory unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise.
PREALLOCATED = 0.75


class Floors(NamedTuple):
    """The least that training takes.

    Attributes:
      k: steps of weight ascent in every step that may perturb.
      step: seconds of a step that perturbs k times.
      epoch: seconds of such an epoch, evaluation included.
      evaluation: seconds of it.
      run: seconds of the run, RST's first stage included.
      exchanges: collective operations of such a step, most of which wait for each other.
      exchanged: bytes that a device hands in to them.
    """

    k: int
    step: float
    epoch: float
    evaluation: float
    run: float
    exchanges: int
    exchanged: int


class Plan(NamedTuple):
    """A run on some hardware.

    Attributes:
      hardware: see there.
      memory: bytes that a device needs, data sets and both programs included.
      epochs: of the run, without RST's first stage.
      floors: for k = 0 and, where it is not 0, k = K2.
      programs: `train` and `evaluate`, compiled.
    """

    hardware: Hardware
    memory: float
    epochs: int
    floors: list[Floors]
    programs: dict[str, CompiledProgram]


def make_plan(config, hardware: Hardware) -> Plan:
    """Compiles a run's training step and evaluation and works out what it needs.

    Raises:
      InputError: for values of the config that do not fit.
      DoesNotFit: where the memory is not enough; it says which batch would fit.
    """
    check_config(config, hardware.devices)
    programs = {"evaluate": _evaluate(config, hardware)}
    try:
        programs["train"] = _one(config, hardware, "train")
        memory = _memory(config, programs)
        if memory > hardware.chip.memory:
            raise DoesNotFit(f"a step of batch {config.batch_size}", memory)
    except DoesNotFit as error:
        raise _with_largest_batch(config, hardware, programs["evaluate"], error) from None
    first_stage = 0.0
    if config.self_training.epochs:
        first_stage = make_plan(teacher_config(config), hardware).floors[0].run
    most = weight_perturbation_of(config).steps if cost.perturbed_epochs(config) else 0
    floors = [_floors(config, programs, k, first_stage) for k in sorted({0, most})]
    return Plan(hardware, memory, config.epochs, floors, programs)


def _one(config, hardware: Hardware, program: str) -> CompiledProgram:
    return next(compile_programs(config, hardware, program))


def _evaluate(config, hardware: Hardware) -> CompiledProgram:
    try:
        return _one(config, hardware, "evaluate")
    except DoesNotFit as error:
        batch_size = config.evaluation.batch_size
        raise InputError(
            f"{error}, with config.evaluation.batch_size={batch_size}: choose a smaller one"
        ) from None


def _memory(config, programs: dict[str, CompiledProgram]) -> float:
    """Bytes: what stays on a device all the time, and what the larger of the two programs needs besides."""
    size: DataSize = cost.data_size(config)
    image = math.prod(size.image_shape) + 4  # and its label
    resident = programs["train"].arguments + image * sum(cost.evaluated_examples(config))
    return resident + max(program.memory - program.arguments for program in programs.values())


def _floors(config, programs, k: int, first_stage: float) -> Floors:
    parts = programs["train"].parts
    trips = {"attack": config.attack.steps, "perturb": k + 1}
    step, unperturbed = (census.seconds(parts, trips | {"perturb": n + 1}) for n in (k, 0))
    batch = census.seconds(programs["evaluate"].parts, {"attack": config.evaluation.steps})
    size = config.evaluation.batch_size
    batches = sum(math.ceil(count / size) for count in cost.evaluated_examples(config))
    evaluation = batch * batches * (2 if config.ema_decay else 1)
    steps, perturbed = cost.steps_per_epoch(config), cost.perturbed_epochs(config)
    run = first_stage + config.epochs * evaluation
    run += steps * (perturbed * step + (config.epochs - perturbed) * unperturbed)
    exchanges = census.exchanges(parts, trips)
    return Floors(k, step, steps * step + evaluation, evaluation, run, *exchanges)


def _halves(batch_size: int, devices: int) -> Iterator[int]:
    """Half the batch, a quarter, ..., as long as devices share it evenly."""
    while batch_size % (2 * devices) == 0:
        batch_size //= 2
        yield batch_size


def _with_largest_batch(config, hardware, evaluate: CompiledProgram, error: DoesNotFit):
    """What is wrong, and the largest of the batch's halves that fits, found by compiling."""
    available = hardware.chip.memory
    smaller = config.copy_and_resolve_references()
    for batch_size in _halves(config.batch_size, hardware.devices):
        # A batch needs no less than in proportion to its size, but for what stays the same.
        if error.needed * batch_size / config.batch_size > 1.5 * available:
            continue
        smaller.batch_size = batch_size
        with contextlib.suppress(DoesNotFit):
            programs = {"evaluate": evaluate, "train": _one(smaller, hardware, "train")}
            if _memory(smaller, programs) <= available:
                hint = f"the largest batch that fits is {batch_size}, of its halves"
                break
    else:
        hint = "none of its halves fits either"
    message = (
        f"does not fit: {error.needed / GIB:.1f} of {hardware.chip.gigabytes} GB a device with "
        f"config.batch_size={config.batch_size}; {hint}"
    )
    return DoesNotFit(message, error.needed)


def print_plan(config, target: str, devices: int | None) -> None:
    """`main.py --mode plan`: says whether a run fits and what it takes at least; nothing runs on a device.

    Raises:
      InputError: for hardware or a config that cannot be, and where it does not fit.
    """
    only_compile()
    if config.dtype == "float64":
        jax.config.update("jax_enable_x64", True)
    print(describe(make_plan(config, find_hardware(target, devices))))
    path = config.extra_data.path
    if path and not pathlib.Path(path).is_file():
        print(
            f"config.extra_data.path={path} is not here: counted as {cost.PUBLISHED_EXTRA:,} images"
        )


def describe(plan: Plan) -> str:
    """What a plan says, for a terminal."""
    hardware, chip = plan.hardware, plan.hardware.chip
    lines = []
    for floors in plan.floors:
        hours = floors.run / 3600
        lines.append(
            f"at least {_short(1e3 * floors.step)} ms a step, {_short(floors.epoch)} s an epoch "
            f"(evaluation {_short(floors.evaluation)} s of it), {_short(hours)} h for {plan.epochs} "
            f"epochs, {_short(hours * hardware.devices)} device-hours"
        )
    most = plan.floors[-1].k
    fits = f"fits: {plan.memory / GIB:.1f} of {chip.gigabytes} GB a device; {lines[0]}"
    text = [f"{hardware.devices} x {chip.name}", fits]
    if most:
        text[-1] += ", with k = 0"
        text.append(f"with k = {most}: {lines[1]}")
        text.append(
            f"k, the steps of weight ascent in a training step, lies between 0, no loss below c_min, and "
            f"{most}, always one."
        )
    if hardware.devices > 1:
        exchanges = " to ".join(
            f"{floors.exchanges} exchanges of {floors.exchanged / 1e6:.0f} MB a device"
            for floors in plan.floors
        )
        text.append(f"Devices make {exchanges} in a step; the floors leave out their latency.")
    text.append(
        "Times are floors: the bytes and operations of the compiled programs at the data sheet's rates. "
        "Nothing was run."
    )
    if chip.gpu and plan.memory > PREALLOCATED * chip.memory:
        text.append(
            f"JAX takes {PREALLOCATED:.0%} of a GPU's memory by default, which is not enough here: set "
            "XLA_PYTHON_CLIENT_MEM_FRACTION=0.95"
        )
    return "\n".join(text)


def _short(value: float) -> str:
    """Two digits, or whole numbers."""
    return f"{value:.0f}" if value >= 9.5 else f"{value:.2g}"
