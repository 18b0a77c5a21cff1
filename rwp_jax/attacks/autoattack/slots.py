"""A batch of searches on the devices, and the compiled functions that move it on."""

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

TICKS = 100  # iterations on the devices before the host is heard of again


class Slots(NamedTuple):
    """A batch of searches.

    Attributes:
      active: [B] bool, which are running.
      to_the_end: [B] bool, which go on when they have fooled the network: the last point counts.
      job: what they are for.
      state: how far they are.
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
    """Makes the functions that work on slots, split over the devices of this host or those of `mesh`.

    Args:
      attack: what searches do.
      model: whom they attack.
      norm: `l_inf`, `l_2` or `l_1`.
      image_shape: (H, W, C).
      mesh: other devices, to compile for.

    Returns:
      Programs whose functions take what they depend on first: begin and outcome epsilon, advance the
      model's weights and epsilon.
    """

    def begin(epsilon, key, x, y, target, restart, image, number):
        """Fresh slots. A key depends on image and search alone, not on the place in a batch."""
        keys = jax.vmap(lambda i, n: jax.random.fold_in(jax.random.fold_in(key, i), n))(
            image, number
        )
        job = Job(x, y, target, restart, keys)
        state = attack.search(norm, epsilon, image_shape).init(job)
        # A random network may take back any single verdict.
        to_the_end = jnp.full(len(image), model.randomized)
        return Slots(image >= 0, to_the_end, job, state)

    def merge(slots, fresh, new, keep):
        """The fresh slots where `new`; of the others those where `keep` go on."""
        slots = slots._replace(active=slots.active & keep)
        return pick(new, fresh, slots)

    def advance(weights, epsilon, key, least, slots):
        """Moves all searches on, until no more than `least` of all devices run or TICKS are over.

        All stop at once: one alone would wait, with ended searches, for those that are slower.
        """
        search = attack.search(norm, epsilon, image_shape)
        key = jax.random.fold_in(
            key, lax.axis_index(devices.AXIS)
        )  # noise of its own on every device
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
    """Makes the functions of `map_programs` for one network and radius; those of before, where they fit.

    Args:
      attack: what searches do.
      model: whom they attack.
      norm: `l_inf`, `l_2` or `l_1`.
      epsilon: radius of the ball; an argument of the programs, so that other radii need no new ones.
      image_shape: (H, W, C).
      precision: of matrix products.
    """
    radius = np.float32(epsilon)
    # The repr too: two functions may be equal that compute something else by now.
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
