"""The trainer's step and evaluation on random images, compiled ahead of time, for timing and counting.

The mode is always `shard_map`, whose programs can be compiled ahead of time; `pmap` wraps it.
"""

import functools
import math
import time

import jax
import numpy as np

from rwp_jax.distributed import devices
from rwp_jax.hardware import counts
from rwp_jax.hardware.cost import data_size
from rwp_jax.hardware.datasheets import chip_of
from rwp_jax.training import experiment
from rwp_jax.training.train_step import TrainingSet, init_state, make_train_step
from rwp_jax.training.weight_perturbation import make_weight_perturbation


def made_up(config, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws uint8 images and int32 labels with the shape and classes of the data set."""
    size, rng = data_size(config), np.random.default_rng(0)
    images = rng.integers(0, 256, (count, *size.image_shape), dtype=np.uint8)
    return images, rng.integers(0, size.num_classes, count, dtype=np.int32)


class Compiled:
    """A program compiled for the available devices."""

    def __init__(self, mapped: devices.Mapped, arguments, name: str):
        begin = time.perf_counter()
        self._program = mapped.lower(*arguments).compile()
        self.call = mapped.using(self._program)
        self.compile_seconds = time.perf_counter() - begin
        self._name = name

    @functools.cached_property
    def parts(self) -> list[counts.Part]:
        """Counts of the program; [] if the device has no data sheet or the program cannot be parsed."""
        chip = chip_of(jax.devices()[0].device_kind)
        if chip is None:
            return []
        try:
            return counts.count_program(self.text(), chip, jax.device_count(), self._name)
        except Exception as error:  # do not lose a measurement on rented hardware
            print(f"no floors: {type(error).__name__}: {error}")
            return []

    def floor(self, trips: dict[str, int]) -> float | None:
        """Returns the minimum seconds by the program's counts, None if unknown."""
        return counts.seconds(self.parts, trips) if self.parts else None

    def text(self) -> str:
        """Returns the text of the optimised module."""
        return self._program.as_text()


class OurStep:
    """The trainer's step on `batch_size` images; called with the number of weight-ascent steps."""

    def __init__(self, config, batch_size: int):
        config = config.copy_and_resolve_references()
        config.batch_size = batch_size
        experiment.check_config(config)
        size = data_size(config)
        recipe = experiment.build(config, size.num_classes, 1).recipe
        gamma = config.weight_perturbation.gamma
        wide_open = make_weight_perturbation("rwp", gamma, 1, math.inf)
        augment, cutmix = experiment.augmentation_of(config)

        def step(state, data, indices, key, k):
            at_k = recipe._replace(perturbation=wide_open._replace(steps=k), perturb_from_step=0)
            rate = lambda _: config.optimizer.learning_rate
            return make_train_step(at_k, augment, rate, devices.AXIS, cutmix)(
                state, data, indices, key
            )

        split = (False, False, True, False, False)
        mapped = devices.data_parallel(step, split, "shard_map", donate=(0,))
        images, labels = made_up(config, batch_size)
        data = TrainingSet(images, labels, np.ones(batch_size, np.float32))
        self._data, self._key = devices.replicate((data, jax.random.key(1)))
        state = init_state(recipe, jax.random.key(0), size.image_shape)
        self._state = devices.replicate(state)
        self._indices = np.random.default_rng(0).permutation(batch_size).astype(np.int32)
        arguments = self._state, self._data, self._indices, self._key, np.int32(0)
        self._compiled = Compiled(mapped, arguments, "train")
        self.compile_seconds = self._compiled.compile_seconds
        self._attack_steps = config.attack.steps
        self(0)

    def __call__(self, k: int, repeats: int = 1) -> float:
        """Returns the seconds per step, averaged over `repeats` queued steps."""
        begin = time.perf_counter()
        for _ in range(repeats):
            self._state, metrics = self._compiled.call(
                self._state, self._data, self._indices, self._key, np.int32(k)
            )
        taken = int(metrics["perturbation_steps"])
        if taken != k:
            raise SystemExit(f"{taken} steps of weight ascent were taken instead of {k}")
        return (time.perf_counter() - begin) / repeats

    @property
    def compiled(self) -> Compiled:
        """The step's program."""
        return self._compiled

    def floor(self, k: int) -> float | None:
        """Returns the minimum seconds of a step, see `Compiled.floor`."""
        return self._compiled.floor({"attack": self._attack_steps, "perturb": k + 1})


class OurEvaluation:
    """The evaluation after an epoch, on one batch."""

    def __init__(self, config):
        config = config.copy_and_resolve_references()
        config.parallel = "shard_map"  # can be compiled ahead of time
        size = data_size(config)
        parts = experiment.build(config, size.num_classes, 1)
        network = parts.recipe.classifier.init(jax.random.key(0), size.image_shape)
        count = config.evaluation.batch_size
        fixed = devices.replicate(
            (*network, *made_up(config, count), jax.random.key(1), parts.evaluation_sizes)
        )
        self._arguments = *fixed, np.arange(count, dtype=np.int32), np.ones(count, bool)
        self._compiled = Compiled(parts.count_correct, self._arguments, "evaluate")
        self._steps = config.evaluation.steps
        self()

    def __call__(self, repeats: int = 1) -> float:
        """Returns the seconds per batch, averaged over `repeats` queued batches."""
        begin = time.perf_counter()
        for _ in range(repeats):
            counts = self._compiled.call(*self._arguments)
        counts.block_until_ready()
        return (time.perf_counter() - begin) / repeats

    def floor(self) -> float | None:
        """Returns the minimum seconds of a batch, see `Compiled.floor`."""
        return self._compiled.floor({"attack": self._steps})
