"""Order of examples: which indices each step and each host sees."""

from collections.abc import Iterator

import numpy as np


def epoch_indices(
    num_examples: int,
    batch_size: int,
    seed: int,
    epoch: int,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[np.ndarray]:
    """Yields this host's part, int32 [batch_size / process_count], of each global batch of an epoch.

    Every host computes the same permutation from (seed, epoch) and takes its slice; what does not fill
    a batch is dropped.
    """
    order = np.random.default_rng([seed, epoch]).permutation(num_examples).astype(np.int32)
    local = batch_size // process_count
    for begin in range(0, num_examples - batch_size + 1, batch_size):
        first = begin + process_index * local
        yield order[first : first + local]


def padded_batches(num_examples: int, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (indices int32, mask bool), both [batch_size], covering every example once in order.

    The last batch is filled up with example 0, masked out.
    """
    for begin in range(0, num_examples, batch_size):
        indices = np.arange(begin, begin + batch_size, dtype=np.int32)
        mask = indices < num_examples
        yield np.where(mask, indices, 0), mask
