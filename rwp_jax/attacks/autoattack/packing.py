"""Packing of the searches for many images into batches that stay full.

A batch has slots. When enough searches have ended, by success or after all iterations, the host refills
their slots with the next searches; between refills everything runs on the devices. So an image costs
nothing once it is broken, and the searches of a batch may have begun at different times.
"""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np

from rwp_jax.attacks.autoattack.settings import Attack
from rwp_jax.attacks.autoattack.slots import Programs, Slots

SLOTS_PER_DEVICE = 8  # a batch is never halved below this size
LONG = 1000  # fewest iterations for which smaller batches at the end, compiled anew, pay off

EMPTY = -1
# Random stream of a randomised network; the searches' streams are numbered by image, from 0.
NOISE = 2**31 - 1


class Ended(NamedTuple):
    """Searches that have ended.

    Attributes:
      slot: [n] slot of each search.
      image: [n] index of its image.
      number: [n] index of the search among the attack's searches for the image.
      fooled: [n] bool, whether the search fooled the network.
      x_adv: [m, H, W, C] adversarial images of the m searches that fooled it, in order.
      zero_gradient: [n] bool, whether the search began with a zero gradient.
    """

    slot: np.ndarray
    image: np.ndarray
    number: np.ndarray
    fooled: np.ndarray
    x_adv: np.ndarray
    zero_gradient: np.ndarray


def default_batch_size(platform: str, devices: int) -> int:
    """Default number of slots over all devices of a platform."""
    return (16 if platform == "cpu" else 256) * devices


def batch_size_for(wanted: int, batch_size: int) -> int:
    """The smallest of batch_size, its half, its quarter, ..., rounded up, that holds `wanted` searches.

    The result is a multiple of the number of devices, with at least SLOTS_PER_DEVICE each after halving.
    """
    devices = jax.local_device_count()
    size, least = -(-batch_size // devices), -(-min(wanted, batch_size) // devices)
    while size > 1 and (half := -(-size // 2)) >= max(least, SLOTS_PER_DEVICE):
        size = half
    return size * devices


def _across_devices(size: int) -> np.ndarray:
    """All slots in an order in which any number of first slots is spread evenly over the devices."""
    return np.arange(size).reshape(jax.local_device_count(), -1).T.ravel()


class Images(NamedTuple):
    """Images to attack, and the searches for each.

    Attributes:
      x: clean images [N, H, W, C], float32.
      y: labels [N].
      target: [N, searches] target class of each search.
      restart: [searches] index of the restart of each search.
    """

    x: np.ndarray
    y: np.ndarray
    target: np.ndarray
    restart: np.ndarray


def _lasting(slots: Slots) -> tuple:
    """The parts of slots that a snapshot holds: all but the job, which `begin` recreates."""
    return slots.active, slots.to_the_end, slots.state


@jax.jit
def _reorder(slots: Slots, order) -> Slots:
    return jax.tree.map(lambda values: values[order], slots)


class PackedBatch:
    """The slots as the host sees them, and the queue of searches that wait for a slot."""

    def __init__(
        self, programs: Programs, attack: Attack, images: Images, jobs, key, batch_size, total=0
    ):
        """Makes empty slots.

        Args:
          programs: compiled functions of the attack.
          attack: attack with its settings.
          images: images to attack.
          jobs: [n, 2], n > 0, (image, number) of the searches to run, in order.
          key: random key of the attack.
          batch_size: maximum number of slots, over all devices.
          total: number of searches of the whole attack, for `fraction`; default n.
        """
        self.programs, self.attack, self.images, self.key = programs, attack, images, key
        self.jobs, self.total, self.most = jobs, total or len(jobs), batch_size
        self.held = np.full((batch_size_for(len(jobs), batch_size), 2), EMPTY)
        self.iteration = np.zeros(len(self.held), int)
        self.rounds = 0
        self.slots = self._fresh()

    def _fresh(self) -> Slots:
        image, number = self.held.T
        x, y, target, restart = self.images
        return self.programs.begin(
            self.key, x[image], y[image], target[image, number], restart[number], image, number
        )

    @property
    def occupied(self) -> np.ndarray:
        return self.held[:, 0] != EMPTY

    @property
    def size(self) -> int:
        return len(self.held)

    def refill(self, broken: np.ndarray) -> None:
        """Drops searches for broken images and gives their slots, and empty ones, to waiting searches."""
        self.jobs = self.jobs[~broken[self.jobs[:, 0]]]
        gone = self.occupied & broken[self.held[:, 0]]
        self.held[gone] = EMPTY
        order = _across_devices(self.size)
        free = order[~self.occupied[order]][: len(self.jobs)]
        self.held[free], self.jobs = self.jobs[: len(free)], self.jobs[len(free) :]
        if len(free) or gone.any():
            new = np.isin(np.arange(self.size), free)
            self.iteration[new] = 0
            fresh = self._fresh() if len(free) else self.slots
            self.slots = self.programs.merge(self.slots, fresh, new, self.occupied)

    def shrink(self) -> None:
        """At the end of a long attack, moves the searches still running into a smaller batch."""
        count = self.occupied.sum()
        size = batch_size_for(count, self.size)
        if len(self.jobs) or self.attack.iterations < LONG or size == self.size:
            return
        places, held = _across_devices(size)[:count], np.full((size, 2), EMPTY)
        order = np.full(size, np.flatnonzero(~self.occupied)[0])
        order[places], held[places] = np.flatnonzero(self.occupied), self.held[self.occupied]
        self.slots, self.held = _reorder(self.slots, order), held
        self.iteration = self.iteration[order]

    def advance(self) -> Ended:
        """Advances all searches, then empties the slots of those that ended and returns them."""
        if len(self.jobs):
            least = self.size - max(1, self.size // 8)
        else:
            shrinks = self.attack.iterations >= LONG and batch_size_for(1, self.size) < self.size
            least = self.size // 2 if shrinks else 0
        key = jax.random.fold_in(jax.random.fold_in(self.key, NOISE), self.rounds)
        self.slots = self.programs.advance(key, np.int32(least), self.slots)
        self.rounds += 1

        outcome = self.programs.outcome(self.slots)
        self.iteration = np.array(outcome.iteration)
        active, fooled, self.ended, zero_gradient = jax.device_get(
            (self.slots.active, outcome.fooled, outcome.ended, outcome.zero_gradient)
        )
        over = self.occupied & ~active
        image, number = self.held[over].T
        success = over & fooled
        # Images are large: they are fetched only if there is one to keep.
        x_adv = np.asarray(outcome.x_adv)[success] if success.any() else self.images.x[:0]
        slot = np.flatnonzero(over)
        result = Ended(slot, image, number, fooled[over], x_adv, zero_gradient[over])
        self.held[over] = EMPTY
        return result

    def take_back(self, ended: Ended, refuted: np.ndarray) -> np.ndarray:
        """Puts back searches whose success was not confirmed, to use their remaining iterations.

        Args:
          ended: result of the last `advance`.
          refuted: [n] bool, whether the success of a search was not confirmed.

        Returns:
          [n] bool, whether a search is put back: if it has iterations left and was not put back before.
        """
        again = refuted & ~self.ended[ended.slot] & ~np.asarray(self.slots.to_the_end)[ended.slot]
        if again.any():
            slots = ended.slot[again]
            self.held[slots] = np.stack([ended.image, ended.number], 1)[again]
            mark = np.isin(np.arange(self.size), slots)
            active, to_the_end = (np.asarray(a) | mark for a in self.slots[:2])
            self.slots = self.slots._replace(active=active, to_the_end=to_the_end)
        return again

    def fraction(self) -> float:
        """The share of iterations that are done or no longer needed."""
        left = self.attack.iterations - self.iteration[self.occupied]
        waiting = len(self.jobs) * self.attack.iterations
        spare = waiting + np.maximum(left, 0).sum()
        return float(1 - spare / (self.total * self.attack.iterations))

    def snapshot(self) -> dict[str, np.ndarray]:
        """Arrays from which `restore` resumes, together with the list of searches that are done."""
        leaves = jax.device_get(jax.tree.leaves(_lasting(self.slots)))
        arrays = {f"slots_{i}": leaf for i, leaf in enumerate(leaves)}
        return arrays | {"held": self.held, "rounds": np.array(self.rounds)}

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Resumes the searches of a snapshot; if it does not fit, changes nothing, and they start anew."""
        size = len(arrays["held"])
        if size % jax.local_device_count() or size > batch_size_for(self.most, self.most):
            return
        held, iteration = self.held, self.iteration
        self.held, self.iteration = arrays["held"], np.zeros(len(arrays["held"]), int)
        slots = self._fresh()
        old, structure = jax.tree.flatten(_lasting(slots))
        new = [arrays.get(f"slots_{i}") for i in range(len(old))]
        if any(
            n is None or (n.shape, n.dtype) != (o.shape, o.dtype)
            for n, o in zip(new, old, strict=True)
        ):
            self.held, self.iteration = held, iteration
            return
        active, to_the_end, state = jax.tree.unflatten(structure, new)
        self.slots = Slots(active, to_the_end, slots.job, state)
        self.rounds = int(arrays["rounds"])
        in_flight = {tuple(job) for job in self.held.tolist()}
        waits = [tuple(job) not in in_flight for job in self.jobs.tolist()]
        self.jobs = self.jobs[waits]


def run(batch: PackedBatch, broken: np.ndarray) -> Iterator[Ended]:
    """Runs the searches of a batch and those that wait for a slot.

    Args:
      batch: a new batch, or one in the middle of its searches.
      broken: [N] bool, images that need no further search. The caller updates it between two results.

    Yields:
      Searches that ended, possibly none, after each advance of at most TICKS iterations.
    """
    while True:
        batch.refill(broken)
        if not batch.occupied.any():
            return
        batch.shrink()
        yield batch.advance()
