import jax
import numpy as np
import pytest
from PIL import Image

from rwp_jax.data.augment import make_augment, rotate
from rwp_jax.errors import InputError

IMAGES = np.random.default_rng(0).integers(1, 256, (32, 8, 10, 3), dtype=np.uint8)


@pytest.fixture
def keys(key):
    return jax.random.split(key, len(IMAGES))


@pytest.mark.parametrize(("mode", "numpy_mode"), [("reflect", "reflect"), ("zero", "constant")])
def test_crops_of_the_padded_image(keys, mode, numpy_mode):
    out = np.asarray(make_augment(padding=2, pad_mode=mode)(keys, IMAGES))
    assert out.dtype == np.uint8
    found = set()
    for image, ours in zip(IMAGES, out, strict=True):
        padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), numpy_mode)
        offsets = [
            (i, j)
            for i in range(5)
            for j in range(5)
            if (padded[i : i + 8, j : j + 10] == ours).all()
        ]
        assert len(offsets) == 1, "a crop of the padded image"
        found |= set(offsets)
    assert len(found) > 12, "offsets vary over all positions"


def test_half_of_the_images_are_mirrored(keys):
    out = np.asarray(make_augment(flip=True)(keys, IMAGES))
    mirrored = [(ours == image[:, ::-1]).all() for ours, image in zip(out, IMAGES, strict=True)]
    same = [(ours == image).all() for ours, image in zip(out, IMAGES, strict=True)]
    assert np.all(np.array(mirrored) ^ np.array(same))
    assert 8 < sum(mirrored) < 24


@pytest.mark.parametrize("degrees", [-15.0, -7.3, 0.0, 4.1, 15.0])
def test_rotation_is_pillows(degrees):
    """Equals Pillow, which torchvision's RandomRotation uses: nearest neighbour, zeros outside."""
    image = np.random.default_rng(1).integers(1, 256, (32, 32), dtype=np.uint8)
    ours = np.asarray(rotate(image[..., None], np.deg2rad(degrees)))[..., 0]
    theirs = np.asarray(Image.fromarray(image).rotate(degrees, Image.Resampling.NEAREST))
    assert (ours != theirs).mean() < 0.002  # ties between two source pixels may round either way


def test_rotation_stays_within_its_bound(keys):
    assert (np.asarray(make_augment(rotation=0.001)(keys, IMAGES)) == IMAGES).all()
    assert (np.asarray(make_augment(rotation=15.0)(keys, IMAGES)) != IMAGES).mean() > 0.1


def test_an_example_depends_on_its_key_alone(keys):
    augment = make_augment(2, "reflect", True, 15.0)
    np.testing.assert_array_equal(augment(keys, IMAGES)[5:9], augment(keys[5:9], IMAGES[5:9]))


def test_no_augmentation_is_the_identity(keys):
    assert make_augment()(keys, IMAGES) is IMAGES


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pad_mode": "wrap"}, "pad_mode='wrap' must be one of reflect, zero"),
        ({"padding": -1}, "padding=-1 must be at least 0"),
        ({"rotation": 200.0}, r"rotation=200.0 must be in \[0, 180\] degrees"),
    ],
)
def test_refusals(settings, message):
    with pytest.raises(InputError, match=message):
        make_augment(**settings)
