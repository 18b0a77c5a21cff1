"""The order of examples: which indices each step and each host uses."""

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np


class Mixture(NamedTuple):
    """How batches are drawn from a training set and extra data, whose indices follow the training set's.

    Attributes:
      num_examples: size of the training set, which is used in shuffled passes.
      num_extra: number of extra examples, which are drawn uniformly with replacement.
      batch_size: global batch size.
      extra_per_batch: number of extra examples in each batch.
      steps: number of batches per epoch.
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
    """Computes how the batches of an epoch are composed.

    Args:
      num_examples: size of the training set.
      batch_size: global batch size, of which at most num_examples may come from the training set.
      num_extra: number of extra examples.
      unlabeled_fraction: share of extra examples in every batch, rounded down to whole examples; -1
        merges both into one pool, which is used in shuffled passes.
      epoch_examples: minimum number of examples per epoch; 0 makes an epoch one pass over the training
        set (or pool), dropping the remainder.
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

    Every host computes the same batches from (seed, epoch) and takes its slices. If an epoch
    is longer than a pass over the training set, another pass follows; the remainder of a pass is dropped.
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

    The last batch is padded with example 0, masked out.
    """
    for begin in range(0, num_examples, batch_size):
        indices = np.arange(begin, begin + batch_size, dtype=np.int32)
        mask = indices < num_examples
        yield np.where(mask, indices, 0), mask
