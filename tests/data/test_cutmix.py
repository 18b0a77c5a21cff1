"""CutMix and Cutout against their definitions, example by example."""

import jax
import numpy as np
import pytest
from scipy import stats

from rwp_jax.data.augment import make_augment
from rwp_jax.data.cutmix import make_cutmix
from rwp_jax.errors import InputError
from rwp_jax.training.mixing import mixed_batch

COUNT, HEIGHT, WIDTH = 400, 12, 16
ONES = np.ones((COUNT, HEIGHT, WIDTH, 3), np.uint8)


@pytest.fixture
def keys(key):
    return jax.random.split(key, COUNT)


def box(mask):
    """Returns the first and the end row and column of a box of True; checks that it is one."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    low, high = (rows[0], columns[0]), (rows[-1] + 1, columns[-1] + 1)
    assert mask.sum() == np.prod(np.subtract(high, low))
    return low, high


def test_cutmix_cuts_one_box_from_the_partner(keys):
    """Of boxes that no edge clips, the share that is kept is uniform for alpha = 1."""
    images, kept = make_cutmix(1.0, "float64")(keys, ONES, 2 * ONES)
    images, kept = np.asarray(images), np.asarray(kept)
    assert images.dtype == np.uint8 and set(np.unique(images)) == {1, 2}
    inside = images[..., 0] == 2
    assert (images == np.where(inside[..., None], 2, 1)).all(), (
        "a pixel has the channels of one image"
    )
    np.testing.assert_allclose(kept, 1 - inside.mean((1, 2)), rtol=1e-12)
    boxes = [box(mask) for mask in inside if mask.any()]
    whole = [
        (high[0] - low[0], high[1] - low[1])
        for low, high in boxes
        if min(low) > 0 and high[0] < HEIGHT and high[1] < WIDTH
    ]
    assert len(whole) > 50
    for height, width in whole:  # halves are whole pixels: 2 floor(floor(size cut) / 2)
        assert height % 2 == width % 2 == 0
        assert abs(width / WIDTH - height / HEIGHT) <= 2 / HEIGHT
    centres = np.array([np.add(low, high) / 2 for low, high in boxes])
    assert centres.min() < 3 and centres[:, 1].max() > WIDTH - 3


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_shares_have_the_beta_distribution(key, alpha):
    """An image of 8 x 8 is left whole if 8 sqrt(1 - l) < 2, so that half a side is no pixel."""
    count = 2000
    images = np.zeros((count, 8, 8, 1), np.uint8)
    out, _ = make_cutmix(alpha)(jax.random.split(key, count), images, images + 1)
    expected = stats.beta(alpha, alpha).cdf(1 / 16)
    found = (np.asarray(out) == 0).all((1, 2, 3)).mean()
    assert abs(found - expected) < 4 * np.sqrt(expected * (1 - expected) / count)


def test_an_example_depends_on_its_key_alone(keys):
    cutmix = make_cutmix(1.0)
    images = np.random.default_rng(0).integers(0, 256, ONES.shape, dtype=np.uint8)
    whole = cutmix(keys, images, images[::-1])
    part = cutmix(keys[5:9], images[5:9], images[::-1][5:9])
    for all_of_them, some in zip(whole, part, strict=True):
        np.testing.assert_array_equal(all_of_them[5:9], some)


def test_a_batch_is_mixed_with_the_next_examples():
    """Images are constant, so that a pixel tells which example it comes from."""
    values = np.arange(1, 31, dtype=np.uint8)
    indices = np.random.default_rng(0).permutation(30)[:16].astype(np.int32)
    batch = (
        np.broadcast_to(values[indices, None, None, None], (16, 8, 8, 1)),
        indices,  # which are their labels
        values[indices].astype(np.float32),
    )
    arguments = make_cutmix(1.0), make_augment(flip=True), *batch, np.arange(16)
    images, y, weight, mixed = mixed_batch(*arguments, jax.random.key(0), None)
    images, following = np.asarray(images)[..., 0], np.roll(indices, -1)
    shares = np.array(
        [(image == own + 1).mean() for image, own in zip(images, indices, strict=True)]
    )
    others = [(image == other + 1).mean() for image, other in zip(images, following, strict=True)]
    np.testing.assert_allclose(shares + others, 1)
    assert (shares < 0.5).any() and (shares > 0.5).any()
    larger = shares >= 0.5
    np.testing.assert_array_equal(y, np.where(larger, indices, following))
    np.testing.assert_array_equal(mixed.other, np.where(larger, following, indices))
    np.testing.assert_allclose(mixed.share, np.maximum(shares, 1 - shares), rtol=1e-6)
    means = shares * (indices + 1) + (1 - shares) * (following + 1)
    np.testing.assert_allclose(weight, means, rtol=1e-6)


def test_cutout_blackens_a_square_that_the_edge_clips(keys):
    out = np.asarray(make_augment(cutout=5)(keys, ONES))
    assert out.dtype == np.uint8
    black = (out == 0).all(-1)
    assert (out[~black] == 1).all()
    corners = set()
    for mask in black:
        low, high = box(mask)
        for axis, size in enumerate((HEIGHT, WIDTH)):
            length = high[axis] - low[axis]
            inner = low[axis] > 0 and high[axis] < size
            assert length == 5 if inner else 3 <= length <= 5
        corners.add((low[0], high[0], low[1], high[1]))
    assert len(corners) > 100, "centres are drawn over all pixels"


def test_cutout_changes_no_other_random_number(keys):
    images = np.random.default_rng(0).integers(1, 256, ONES.shape, dtype=np.uint8)
    settings = {"padding": 2, "flip": True, "rotation": 15.0}
    without = np.asarray(make_augment(**settings)(keys, images))
    out = np.asarray(make_augment(**settings, cutout=6)(keys, images))
    kept = out != 0
    np.testing.assert_array_equal(out[kept], without[kept])
    assert 0.7 < kept.mean() < 0.95


@pytest.mark.parametrize("alpha", [-1.0, float("nan"), float("inf")])
def test_refusals(alpha):
    with pytest.raises(InputError, match=r"config.augment.cutmix=\S+ must be in \[0, inf\)"):
        make_cutmix(alpha)
    assert make_cutmix(0.0) is None
    with pytest.raises(InputError, match="config.augment.cutout=-1 must be at least 0"):
        make_augment(cutout=-1)
