"""Order of examples: which indices each step and each host sees."""

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np


class Mixture(NamedTuple):
    """How batches are made of a training set and extra data, which follows it in one numbering.

    Attributes:
      num_examples: of the training set, in shuffled passes.
      num_extra: extra examples, drawn uniformly with replacement.
      batch_size: global.
      extra_per_batch: how many examples of each batch are extra ones.
      steps: batches per epoch.
    """

    num_examples: int
    num_extra: int
    batch_size: int
    extra_per_batch: int
    steps: int


def make_mixture(
    num_examples: int,
    batch_size: int,
    num_extra: int = 0,
    unlabeled_fraction: float = 0.0,
    epoch_examples: int = 0,
) -> Mixture:
    """Works out the batches of an epoch.

    Args:
      num_examples: of the training set.
      batch_size: global, with at most num_examples of the training set.
      num_extra: number of extra examples.
      unlabeled_fraction: share of extra examples in every batch, rounded down to whole examples; -1
        throws both into one pool that is passed through in shuffled order.
      epoch_examples: an epoch is at least this many examples long; 0 makes it one pass of the training
        set (or pool), whose remainder is dropped.
    """
    if num_extra and unlabeled_fraction < 0:
        num_examples, num_extra = num_examples + num_extra, 0
    extra_per_batch = int(batch_size * max(unlabeled_fraction, 0)) if num_extra else 0
    if epoch_examples:
        steps = math.ceil(epoch_examples / batch_size)
    else:
        steps = num_examples // (batch_size - extra_per_batch)
    return Mixture(num_examples, num_extra, batch_size, extra_per_batch, steps)


def epoch_indices(
    mixture: Mixture, seed: int, epoch: int, process_index: int = 0, process_count: int = 1
) -> Iterator[np.ndarray]:
    """Yields this host's part, int32 [batch_size / process_count], of each global batch of an epoch.

    Every host computes the same batches from (seed, epoch) and takes its slices. A pass through the
    training set that the epoch outlasts is followed by another; what does not fill a batch is dropped.
    """
    rng = np.random.default_rng([seed, epoch])
    count, extra = mixture.batch_size - mixture.extra_per_batch, mixture.extra_per_batch
    local = mixture.batch_size // process_count
    mine = slice(process_index * local, (process_index + 1) * local)

    def passes():
        while True:
            order = rng.permutation(mixture.num_examples)
            yield from (order[i : i + count] for i in range(0, len(order) - count + 1, count))

    for batch in itertools.islice(passes(), mixture.steps):
        if extra:
            drawn = mixture.num_examples + rng.integers(mixture.num_extra, size=extra)
            batch = rng.permutation(np.concatenate([batch, drawn]))
        yield batch[mine].astype(np.int32)


def padded_batches(num_examples: int, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (indices int32, mask bool), both [batch_size], covering every example once in order.

    The last batch is filled up with example 0, masked out.
    """
    for begin in range(0, num_examples, batch_size):
        indices = np.arange(begin, begin + batch_size, dtype=np.int32)
        mask = indices < num_examples
        yield np.where(mask, indices, 0), mask
