import numpy as np
import pytest

from rwp_jax.data.order import epoch_indices, make_mixture, padded_batches


def test_an_epoch_is_a_seeded_permutation_without_the_remainder():
    mixture = make_mixture(103, 10)
    batches = list(epoch_indices(mixture, seed=1, epoch=2))
    order = np.concatenate(batches)
    assert len(batches) == 10 and len(set(order)) == 100 and order.max() < 103
    np.testing.assert_array_equal(order, np.concatenate(list(epoch_indices(mixture, 1, 2))))
    for seed, epoch in ((1, 3), (2, 2)):
        assert (np.concatenate(list(epoch_indices(mixture, seed, epoch))) != order).any()


def test_hosts_split_the_same_global_batches():
    mixture = make_mixture(64, 16, num_extra=10, unlabeled_fraction=0.25)
    whole = list(epoch_indices(mixture, 0, 0))
    parts = [list(epoch_indices(mixture, 0, 0, host, 4)) for host in range(4)]
    for step, batch in enumerate(whole):
        joined = np.concatenate([part[step] for part in parts])
        np.testing.assert_array_equal(joined, batch)


def test_half_of_every_batch_is_extra_data():
    """As in RST's sampler, labelled examples come in shuffled passes and extra ones with replacement."""
    mixture = make_mixture(100, 16, 50, unlabeled_fraction=0.5, epoch_examples=410)
    batches = np.stack(list(epoch_indices(mixture, 3, 0)))
    assert batches.shape == (26, 16)  # 410 / 16, rounded up
    labelled = batches < 100
    assert (labelled.sum(1) == 8).all() and batches.max() < 150
    # A pass has 12 batches of 8; the epoch has two passes and the start of a third.
    in_order = [batch[batch < 100] for batch in batches]
    for first in (0, 12):
        seen = np.concatenate(in_order[first : first + 12])
        assert len(set(seen)) == 96
    assert set(in_order[0]) != set(in_order[12])
    extra = batches[~labelled]
    assert len(set(extra)) > 40 and np.bincount(extra).max() > 5, "drawn with replacement"
    assert labelled[:, :8].sum() not in (0, 26 * 8), "the two kinds are mixed within a batch"


def test_one_pool():
    mixture = make_mixture(30, 8, 34, unlabeled_fraction=-1)
    order = np.concatenate(list(epoch_indices(mixture, 0, 0)))
    assert sorted(order) == list(range(64))


def test_without_extra_data_the_fraction_says_nothing():
    assert make_mixture(30, 8, 0, 0.5) == make_mixture(30, 8) == (30, 0, 8, 0, 3)
    assert make_mixture(30, 8, 5, 0.1).extra_per_batch == 0


@pytest.mark.parametrize("count", [1, 8, 15, 16, 17])
def test_padded_batches_cover_every_example_once(count):
    seen = []
    for indices, mask in padded_batches(count, 8):
        assert indices.shape == mask.shape == (8,) and indices.max() < count
        seen += indices[mask].tolist()
    assert seen == list(range(count))
