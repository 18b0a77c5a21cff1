"""Searches of many images, packed into batches that stay full.

A batch has slots. Whenever some searches have ended, fooled or spent, the host fills their slots with
the next ones; between two such moments everything runs on the devices. So a fooled image costs nothing
any more, and the searches of a batch need not have begun together.
"""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np

from rwp_jax.attacks.autoattack.settings import Attack
from rwp_jax.attacks.autoattack.slots import Programs, Slots

SLOTS_PER_DEVICE = 8  # a batch is never halved below
LONG = 1000  # iterations that make the end of an attack worth a smaller batch, compiled anew

EMPTY = -1
# Stream of a randomised network's draws, beside those of the images' searches, whose numbers are smaller.
NOISE = 2**31 - 1


class Ended(NamedTuple):
    """Searches that came to an end.

    Attributes:
      slot: [n] where each was.
      image: [n] which image each was for.
      number: [n] which of the attack's searches it was.
      fooled: [n] bool, whether the network was fooled.
      x_adv: [m, H, W, C] what fooled it, in order.
      zero_gradient: [n] bool, which began without a gradient.
    """

    slot: np.ndarray
    image: np.ndarray
    number: np.ndarray
    fooled: np.ndarray
    x_adv: np.ndarray
    zero_gradient: np.ndarray


def default_batch_size(platform: str, devices: int) -> int:
    """Searches at once over all devices of a platform."""
    return (16 if platform == "cpu" else 256) * devices


def batch_size_for(wanted: int, batch_size: int) -> int:
    """The smallest of batch_size, its half, its quarter, ... that holds `wanted` searches."""
    devices = jax.local_device_count()
    size, least = -(-batch_size // devices), -(-min(wanted, batch_size) // devices)
    while size % 2 == 0 and size // 2 >= max(least, SLOTS_PER_DEVICE):
        size //= 2
    return size * devices


def _across_devices(size: int) -> np.ndarray:
    """All slots in an order that gives every device its share of however many come first."""
    return np.arange(size).reshape(jax.local_device_count(), -1).T.ravel()


class Images(NamedTuple):
    """What is attacked.

    Attributes:
      x: clean images [N, H, W, C], float32.
      y: labels [N].
      target: [N, searches] target classes.
      restart: [searches] which restart each search is.
    """

    x: np.ndarray
    y: np.ndarray
    target: np.ndarray
    restart: np.ndarray


def _lasting(slots: Slots) -> tuple:
    """What a snapshot holds of slots: all but the job, which `begin` makes again."""
    return slots.active, slots.to_the_end, slots.state


@jax.jit
def _reorder(slots: Slots, order) -> Slots:
    return jax.tree.map(lambda values: values[order], slots)


class PackedBatch:
    """The slots, seen from the host, and the searches that wait for one."""

    def __init__(
        self, programs: Programs, attack: Attack, images: Images, jobs, key, batch_size, total=0
    ):
        """Makes empty slots.

        Args:
          programs: of the attack.
          attack: its settings.
          images: what is attacked.
          jobs: [n, 2], n > 0: (image, number) of the searches to run, in order.
          key: of the attack.
          batch_size: the most slots, over all devices.
          total: searches of the whole attack, for `fraction`; default n.
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
        """Gives up searches for broken images and hands their slots, and the empty ones, on."""
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
        """At the end of a long attack: moves what still runs into a batch it fills better."""
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
        """Moves all searches on and empties the slots of those that ended."""
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
        # Images are large: they are fetched only when there is one to keep.
        x_adv = np.asarray(outcome.x_adv)[success] if success.any() else self.images.x[:0]
        slot = np.flatnonzero(over)
        result = Ended(slot, image, number, fooled[over], x_adv, zero_gradient[over])
        self.held[over] = EMPTY
        return result

    def take_back(self, ended: Ended, refuted: np.ndarray) -> np.ndarray:
        """Puts searches back whose success did not hold, to use the iterations that are left.

        Args:
          ended: what the last `advance` returned.
          refuted: [n] bool, which of them.

        Returns:
          [n] bool, those that had iterations left; each is put back once.
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
        """The share of iterations that are done or not needed any more."""
        left = self.attack.iterations - self.iteration[self.occupied]
        waiting = len(self.jobs) * self.attack.iterations
        spare = waiting + np.maximum(left, 0).sum()
        return float(1 - spare / (self.total * self.attack.iterations))

    def snapshot(self) -> dict[str, np.ndarray]:
        """All that `restore` needs beside the list of searches that are done."""
        leaves = jax.device_get(jax.tree.leaves(_lasting(self.slots)))
        arrays = {f"slots_{i}": leaf for i, leaf in enumerate(leaves)}
        return arrays | {"held": self.held, "rounds": np.array(self.rounds)}

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Goes on with the searches of a snapshot, or begins them anew where it does not fit."""
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
    """Runs all searches of a batch and those that wait.

    Args:
      batch: may be in the middle of its work.
      broken: [N] bool, images that need no search any more. The caller updates it between two results.

    Yields:
      What ended, each time that some did or TICKS iterations are over.
    """
    while True:
        batch.refill(broken)
        if not batch.occupied.any():
            return
        batch.shrink()
        yield batch.advance()
