"""Compiles the trainer's own programs for absent hardware."""

import functools
import re
import time
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rwp_jax.attacks.autoattack.model import make_model
from rwp_jax.attacks.autoattack.packing import default_batch_size
from rwp_jax.attacks.autoattack.slots import map_programs
from rwp_jax.attacks.autoattack.suite import VERSIONS
from rwp_jax.errors import InputError, check_choice, first_line
from rwp_jax.hardware import cost, counts
from rwp_jax.hardware.cost import (
    data_size,
    is_streamed,
    planned_mixture,
    training_examples,
)
from rwp_jax.hardware.datasheets import GIB
from rwp_jax.hardware.quiet import quiet_compiler
from rwp_jax.hardware.topology import Hardware
from rwp_jax.models.classifier import make_classifier
from rwp_jax.runs.config import network_settings
from rwp_jax.training import experiment
from rwp_jax.training.train_step import TrainingSet, init_state

PROGRAMS = ("train", "evaluate", "autoattack")
# Messages for TPUs: "Ran out of memory in memory space hbm. Used 21.40G of 15.75G hbm" and "Ran out of
# memory on HBM, the total memory required for HLO temporaries (61.79G) exceeds available HBM (15.75G)".
_OUT_OF_MEMORY = re.compile(
    r"memory in memory space hbm.*?Used ([\d.]+)([KMGT])|memory on HBM.*?\(([\d.]+)([KMGT])\)", re.S
)
_UNITS = {unit: 1024**power for power, unit in enumerate("KMGT", 1)}


class DoesNotFit(InputError):
    """Raised for a program that needs more memory, `needed` bytes, than a device has."""

    def __init__(self, what: str, needed: float):
        self.needed = needed
        super().__init__(what)


class CompiledProgram(NamedTuple):
    """A program compiled for given hardware.

    Attributes:
      name: one of PROGRAMS, or the name of an attack of AutoAttack.
      batch_size: batch size over all devices.
      text: text of its optimised module.
      parts: its loops, then the rest; see `counts`.
      memory: bytes that each device needs to run it, including arguments.
      arguments: bytes of the arguments.
      seconds: compilation time.
    """

    name: str
    batch_size: int
    text: str
    parts: list[counts.Part]
    memory: int
    arguments: int
    seconds: float


def compile_programs(
    config, hardware: Hardware, program: str, batch_size: int | None = None
) -> Iterator[CompiledProgram]:
    """Compiles a program of a run and yields it; for `autoattack`, yields one program per attack.

    Args:
      config: the run's config; its batch sizes are global.
      hardware: hardware to compile for.
      program: `train`, a training step; `evaluate`, the evaluation of one batch after an epoch; or
        `autoattack`, a step of a batch of searches, for each attack of the standard version.
      batch_size: number of searches of `autoattack` over all devices; None for AutoAttack's default.

    Raises:
      InputError: for invalid values of the config, or batches that cannot be divided over the devices.
      DoesNotFit: if a device has too little memory.
    """
    check_program(config, hardware, program, batch_size)
    config = experiment.filled(config, hardware.platform, hardware.devices)
    if program == "autoattack":
        yield from _autoattack(config, hardware, batch_size)
        return
    lower, section, attack = {
        "train": (lower_train, config, config.attack),
        "evaluate": (lower_evaluate, config.evaluation, config.evaluation),
    }[program]
    compiled = _compiled(program, lambda: lower(config, hardware), hardware, section.batch_size)
    # TPU programs do not state how often a loop runs.
    known = lambda part: part._replace(trips=attack.steps) if part.name == "attack" else part
    yield compiled._replace(parts=[known(p) if p.trips is None else p for p in compiled.parts])


def check_program(config, hardware: Hardware, program: str, batch_size: int | None = None) -> None:
    """Raises InputError for everything that `compile_programs` rejects before compiling."""
    check_choice("program", program, PROGRAMS)
    check_dtype(config, hardware)
    if program == "autoattack":
        if batch_size is not None and (batch_size < 1 or batch_size % hardware.devices):
            raise InputError(
                f"batch_size={batch_size} must be a positive multiple of the number of devices, "
                f"{hardware.devices}"
            )
        experiment.check_config(config, 1)
        return
    experiment.check_config(config, hardware.devices)
    cost.check(config)


def check_dtype(config, hardware: Hardware) -> None:
    """Raises InputError for a dtype that the hardware does not support."""
    if not hardware.chip.rates.get(config.dtype, 1):
        raise InputError(
            f"config.dtype={config.dtype!r} is not supported by {hardware.chip.name}, must be "
            "float32 or bfloat16"
        )


def _abstract(config, hardware: Hardware):
    """Builds the parts of a run on the hardware, and the shapes of its state and of a random key."""
    size = data_size(config)
    steps, streamed = planned_mixture(config).steps, is_streamed(config)
    parts = experiment.build(config, size.num_classes, steps, hardware.mesh, streamed=streamed)
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(lambda key: init_state(parts.recipe, key, size.image_shape), key)
    return parts, state, key


def _images(count: int, image_shape) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    """Returns the shapes of images and labels."""
    shape = jax.ShapeDtypeStruct
    return shape((count, *image_shape), jnp.uint8), shape((count,), jnp.int32)


def lower_train(config, hardware: Hardware) -> jax.stages.Lowered:
    """Lowers the training step on the whole training set."""
    parts, state, key = _abstract(config, hardware)
    images, labels = _images(training_examples(config), data_size(config).image_shape)
    weights = jax.ShapeDtypeStruct(labels.shape, jnp.float32)
    sent = jax.ShapeDtypeStruct((config.batch_size + hardware.devices,), jnp.int32)
    if is_streamed(config):
        batch, _ = _images(config.batch_size, data_size(config).image_shape)
        data = TrainingSet(None, labels, weights)
        return parts.train_step.lower(state, data, sent, key, parts.numbers, batch)
    data = TrainingSet(images, labels, weights)
    return parts.train_step.lower(state, data, sent, key, parts.numbers)


def lower_evaluate(config, hardware: Hardware) -> jax.stages.Lowered:
    """Lowers the evaluation of one batch of test images."""
    parts, state, key = _abstract(config, hardware)
    size = data_size(config)
    images, labels = _images(size.test, size.image_shape)
    batch = (config.evaluation.batch_size,)
    indices, mask = jax.ShapeDtypeStruct(batch, jnp.int32), jax.ShapeDtypeStruct(batch, bool)
    network = state.params, state.batch_stats
    return parts.count_correct.lower(
        *network, images, labels, key, parts.evaluation_sizes, indices, mask
    )


def _autoattack(config, hardware: Hardware, batch_size: int | None) -> Iterator[CompiledProgram]:
    size = data_size(config)
    if batch_size is None:
        batch_size = default_batch_size(hardware.platform, hardware.devices)
    settings = network_settings(config.model)
    classifier = make_classifier(num_classes=size.num_classes, **settings)
    shapes = classifier.shapes(size.image_shape)
    network = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    logits_fn = functools.partial(classifier.eval, *network)
    model = make_model(logits_fn, size.image_shape, False, hardware.platform)
    for attack in VERSIONS["standard"]:
        programs = map_programs(attack, model, config.threat.norm, size.image_shape, hardware.mesh)
        lower = functools.partial(_lower_advance, programs, model, size.image_shape, batch_size)
        yield _compiled(attack.name, lower, hardware, batch_size)


def _lower_advance(programs, model, image_shape, batch_size: int) -> jax.stages.Lowered:
    """Lowers one step of all searches of an attack."""
    shape = jax.ShapeDtypeStruct
    epsilon, key = shape((), jnp.float32), jax.eval_shape(lambda: jax.random.key(0))
    images, numbers = (
        shape((batch_size, *image_shape), jnp.float32),
        shape((batch_size,), jnp.int32),
    )
    begin = programs.begin.lower(epsilon, key, images, *[numbers] * 5)
    slots = jax.tree.map(lambda leaf: shape(leaf.shape, leaf.dtype), begin.out_info)
    return programs.advance.lower(model.weights, epsilon, key, shape((), jnp.int32), slots)


def does_not_fit(what: str, needed: float, hardware: Hardware) -> DoesNotFit:
    """Builds the error for `what`, which needs the given number of bytes per device."""
    chip, amount = hardware.chip, f"{needed / GIB:.1f} of {hardware.chip.gigabytes} GB"
    usable = f" (usable: {chip.memory / GIB:.1f})" if chip.memory < chip.gigabytes * GIB else ""
    return DoesNotFit(
        f"does not fit: {what} needs {amount} per device of {hardware.target}{usable}", needed
    )


def _what_failed(error: Exception, program: str, hardware: Hardware) -> Exception:
    """Converts the compiler's out-of-memory error to one line; returns any other error as it is."""
    used = _OUT_OF_MEMORY.search(str(error))
    if used:
        amount, unit = (used[1], used[2]) if used[1] else (used[3], used[4])
        return does_not_fit(program, float(amount) * _UNITS[unit], hardware)
    if "RESOURCE_EXHAUSTED" in str(error):
        return InputError(f"does not fit: {program} on {hardware.target}: {first_line(error)}")
    return error


def _compiled(name: str, lower, hardware: Hardware, batch_size: int) -> CompiledProgram:
    """Compiles and counts a program; raises DoesNotFit if it needs too much memory."""
    begin = time.monotonic()
    lowered = lower()
    with quiet_compiler():
        try:
            compiled = lowered.compile(hardware.options)
        except jax.errors.JaxRuntimeError as error:
            raise _what_failed(error, name, hardware) from error
    sizes, text = compiled.memory_analysis(), compiled.as_text()
    memory = (
        sizes.argument_size_in_bytes
        + sizes.output_size_in_bytes
        - sizes.alias_size_in_bytes
        + sizes.temp_size_in_bytes
        + sizes.generated_code_size_in_bytes
    )
    if memory > hardware.chip.memory:
        raise does_not_fit(name, memory, hardware)
    parts = counts.count_program(text, hardware.chip, hardware.devices, name)
    seconds = time.monotonic() - begin
    arguments = sizes.argument_size_in_bytes
    return CompiledProgram(name, batch_size, text, parts, memory, arguments, seconds)
