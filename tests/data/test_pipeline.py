import numpy as np
import pytest

from rwp_jax.data.pipeline import epoch_indices, padded_batches


def test_an_epoch_is_a_seeded_permutation_without_the_remainder():
    batches = list(epoch_indices(103, 10, seed=1, epoch=2))
    order = np.concatenate(batches)
    assert len(batches) == 10 and len(set(order)) == 100 and order.max() < 103
    np.testing.assert_array_equal(order, np.concatenate(list(epoch_indices(103, 10, 1, 2))))
    for seed, epoch in ((1, 3), (2, 2)):
        assert (np.concatenate(list(epoch_indices(103, 10, seed, epoch))) != order).any()


def test_hosts_split_the_same_global_batches():
    whole = list(epoch_indices(64, 16, 0, 0))
    parts = [list(epoch_indices(64, 16, 0, 0, host, 4)) for host in range(4)]
    for step, batch in enumerate(whole):
        joined = np.concatenate([part[step] for part in parts])
        np.testing.assert_array_equal(joined, batch)


@pytest.mark.parametrize("count", [1, 8, 15, 16, 17])
def test_padded_batches_cover_every_example_once(count):
    seen = []
    for indices, mask in padded_batches(count, 8):
        assert indices.shape == mask.shape == (8,) and indices.max() < count
        seen += indices[mask].tolist()
    assert seen == list(range(count))
