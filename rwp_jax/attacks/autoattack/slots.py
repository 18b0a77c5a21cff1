"""A batch of searches on the devices, and the compiled functions that advance it."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh

from rwp_jax.attacks.autoattack.kept import Latest, kept_for
from rwp_jax.attacks.autoattack.model import Model
from rwp_jax.attacks.autoattack.search import Job, Outcome, pick
from rwp_jax.attacks.autoattack.settings import Attack
from rwp_jax.distributed import devices
from rwp_jax.models.precision import matmul_precision

TICKS = 100  # most iterations on the devices before control returns to the host


class Slots(NamedTuple):
    """A batch of searches.

    Attributes:
      active: [B] bool, whether a search is running.
      to_the_end: [B] bool, whether a search continues after fooling the network; its last success counts.
      job: images, labels, targets and keys of the searches.
      state: states of the searches, trees of arrays [B, ...].
    """

    active: Any
    to_the_end: Any
    job: Job
    state: Any


class Programs(NamedTuple):
    """The compiled functions of an attack on a network; see `map_programs` and `compile_attack`."""

    begin: Callable
    merge: Callable
    advance: Callable
    outcome: Callable


def map_programs(
    attack: Attack, model: Model | Latest, norm: str, image_shape, mesh: Mesh | None = None
) -> Programs:
    """Makes the functions that work on slots, sharded over the devices of this host or those of `mesh`.

    Args:
      attack: attack with its settings.
      model: attacked network.
      norm: `l_inf`, `l_2` or `l_1`.
      image_shape: (H, W, C).
      mesh: devices to compile for; default those of this host.

    Returns:
      Programs whose functions have additional first arguments: epsilon for begin and outcome, the model's
      weights and epsilon for advance.
    """

    def begin(epsilon, key, x, y, target, restart, image, number):
        """Returns fresh slots. A key depends only on image and search, not on the place in the batch."""
        keys = jax.vmap(lambda i, n: jax.random.fold_in(jax.random.fold_in(key, i), n))(
            image, number
        )
        job = Job(x, y, target, restart, keys)
        state = attack.search(norm, epsilon, image_shape).init(job)
        # A randomised network may contradict any single success.
        to_the_end = jnp.full(len(image), model.randomized)
        return Slots(image >= 0, to_the_end, job, state)

    def merge(slots, fresh, new, keep):
        """Returns the fresh slots where `new`; of the others, only those in `keep` remain active."""
        slots = slots._replace(active=slots.active & keep)
        return pick(new, fresh, slots)

    def advance(weights, epsilon, key, least, slots):
        """Advances all searches until at most `least`, over all devices, run or TICKS iterations are over.

        All devices stop together: a device that stopped earlier would only wait for the slower ones.
        """
        search = attack.search(norm, epsilon, image_shape)
        # Different noise on every device.
        key = jax.random.fold_in(key, lax.axis_index(devices.AXIS))
        logits_fn = lambda images, key: model.apply(weights, images, key)

        count = lambda slots: lax.psum(jnp.sum(slots.active, dtype=jnp.int32), devices.AXIS)

        def step(carry):
            tick, _, slots = carry
            moved = search.step(logits_fn, slots.job, slots.state, jax.random.fold_in(key, tick))
            state = pick(slots.active, moved, slots.state)
            outcome = search.outcome(slots.job, state)
            done = outcome.ended | (outcome.fooled & ~slots.to_the_end)
            slots = slots._replace(active=slots.active & ~done, state=state)
            return tick + 1, count(slots), slots

        running = lambda carry: (carry[0] < TICKS) & (carry[1] > least)
        begin = jnp.zeros((), jnp.int32), count(slots), slots
        return lax.while_loop(running, step, begin)[2]

    def outcome(epsilon, slots) -> Outcome:
        return attack.search(norm, epsilon, image_shape).outcome(slots.job, slots.state)

    return Programs(
        devices.over_examples(begin, (False, False) + (True,) * 6, mesh),
        devices.over_examples(merge, (True,) * 4, mesh),
        devices.over_examples(advance, (False,) * 4 + (True,), mesh),
        devices.over_examples(outcome, (False, True), mesh),
    )


def compile_attack(
    attack: Attack, model: Model, norm: str, epsilon: float, image_shape, precision: str
) -> Programs:
    """Makes the functions of `map_programs` for a network and radius, or reuses compiled ones.

    Args:
      attack: attack with its settings.
      model: attacked network.
      norm: `l_inf`, `l_2` or `l_1`.
      epsilon: radius of the ball; an argument of the programs, so that they serve all radii.
      image_shape: (H, W, C).
      precision: precision of matrix products.
    """
    radius = np.float32(epsilon)
    # The repr too: an equal loss function may compute something else than it did when it was compiled.
    key = (attack, repr(attack), model.randomized, norm, tuple(image_shape), precision)
    make = lambda latest: map_programs(attack, latest, norm, image_shape)
    begin, merge, advance, outcome = kept_for(model, key, make)

    def precisely(function):
        def call(*arguments):
            with matmul_precision(precision):
                return function(*arguments)

        return call

    return Programs(
        functools.partial(begin, radius),
        merge,
        precisely(functools.partial(advance, model.weights, radius)),
        functools.partial(outcome, radius),
    )
