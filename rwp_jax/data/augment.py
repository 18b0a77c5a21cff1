"""Augmentation of uint8 images on the device: padding, crop, flip, rotation and Cutout."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from rwp_jax.errors import InputError, check_choice

PAD_MODES = ("reflect", "zero")
MAX_ROTATION = 180.0


def make_augment(
    padding: int = 0,
    pad_mode: str = "reflect",
    flip: bool = False,
    rotation: float = 0.0,
    cutout: int = 0,
    dtype: str = "float32",
) -> Callable:
    """Makes the augmentation of the authors' scripts, in their order: pad, crop, flip, rotate; then Cutout.

    Args:
      padding: pixels added on each side before a crop of the original size is taken at random.
      pad_mode: `reflect` (the edge is not repeated) or `zero`.
      flip: whether images are mirrored left to right with probability 1/2.
      rotation: largest angle in degrees, drawn uniformly on both sides of 0; nearest neighbour about
        the centre, zeros outside, as torchvision's RandomRotation.
      cutout: side in pixels of a black square (DeVries and Taylor, 2017, arXiv:1708.04552), whose centre is
        drawn uniformly over the pixels and which the image's edge clips; 0 for none.
      dtype: dtype of the run. In a float64 run, offsets and flips are drawn with 64-bit numbers.

    Returns:
      (keys [B], images uint8 [B, H, W, C]) -> images of the same shape and dtype.

    Raises:
      InputError: if the mode is unknown or a value is out of range.
    """
    check_choice("config.augment.pad_mode", pad_mode, PAD_MODES)
    if padding < 0:
        raise InputError(f"config.augment.padding={padding} must be at least 0")
    if cutout < 0:
        raise InputError(f"config.augment.cutout={cutout} must be at least 0")
    if not 0 <= rotation <= MAX_ROTATION:
        raise InputError(
            f"config.augment.rotation={rotation} must be in [0, {MAX_ROTATION:g}] degrees"
        )

    # Explicit dtypes: a float32 run draws the same with and without jax_enable_x64.
    wide = dtype == "float64"
    whole, half = (
        jnp.int64 if wide else jnp.int32,
        jnp.asarray(0.5, jnp.float64 if wide else jnp.float32),
    )

    def augment_one(key, image):
        height, width = image.shape[:2]
        offset_key, flip_key, angle_key = jax.random.split(key, 3)
        if padding:
            around = ((padding, padding), (padding, padding), (0, 0))
            padded = jnp.pad(image, around, "constant" if pad_mode == "zero" else "reflect")
            offset = jax.random.randint(offset_key, (2,), -padding, padding + 1, whole) + padding
            image = lax.dynamic_slice(padded, (*offset, jnp.zeros_like(offset[0])), image.shape)
        if flip:
            image = jnp.where(jax.random.bernoulli(flip_key, half), image[:, ::-1], image)
        if rotation:
            angle = jax.random.uniform(angle_key, (), jnp.float32, -rotation, rotation)
            image = rotate(image, jnp.deg2rad(angle))
        if cutout:  # its key is none of those above, whose numbers stay the same
            box_key = jax.random.fold_in(key, 3)
            sizes = jnp.asarray((height, width), whole)
            centre = jax.random.randint(box_key, (2,), jnp.zeros_like(sizes), sizes, whole)
            rows, columns = (
                (jnp.arange(size, dtype=whole) - low + cutout // 2) // cutout == 0
                for size, low in zip((height, width), centre, strict=True)
            )
            image = jnp.where((rows[:, None] & columns)[..., None], 0, image)
        return image

    if not (padding or flip or rotation or cutout):
        return lambda keys, images: images
    return jax.vmap(augment_one)


def rotate(image, angle):
    """Rotates an image [H, W, C] counter-clockwise by `angle` radians; nearest neighbour, zeros outside."""
    height, width = image.shape[:2]
    y, x = (index.astype(angle.dtype) + 0.5 for index in jnp.mgrid[:height, :width])
    y, x = y - height / 2, x - width / 2
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    columns = jnp.floor(x * cos - y * sin + width / 2).astype(jnp.int32)
    rows = jnp.floor(x * sin + y * cos + height / 2).astype(jnp.int32)
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    pixels = image[jnp.clip(rows, 0, height - 1), jnp.clip(columns, 0, width - 1)]
    return jnp.where(inside[..., None], pixels, 0)
