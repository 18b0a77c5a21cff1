"""Names of the package's networks, their depth and width, and the sizes of images that they take."""

import re
from collections.abc import Sequence

from rwp_jax.errors import InputError

DEEPEST, WIDEST = 1000, 100  # larger sizes are likely typos, and take hours to build
ACCEPTED = (
    "preactresnet18 or wrn-DEPTH-WIDTH with DEPTH = 6 n + 4, such as wrn-28-10 "
    f"(at most {DEEPEST} deep and {WIDEST} wide), dm-preactresnet18 or dm-wrn-DEPTH-WIDTH"
)
WIDE_RESNET = r"(dm-)?wrn-(\d+)-(\d+)"


def wide_resnet_size(name: str) -> tuple[int, int] | None:
    """Returns depth and width of `[dm-]wrn-DEPTH-WIDTH`; None for other names and impossible sizes."""
    match = re.fullmatch(WIDE_RESNET, name)
    depth, width = map(int, match.groups()[1:]) if match else (0, 0)
    possible = 10 <= depth <= DEEPEST and (depth - 4) % 6 == 0 and 1 <= width <= WIDEST
    return (depth, width) if possible else None


def check_image_size(name: str, image_shape: Sequence[int]) -> None:
    """Raises InputError if the network `name` does not take images [H, W, ...] of this size."""
    wanted = ""
    if name == "dm-preactresnet18" and min(image_shape[:2]) < 8:
        wanted = "of at least 8x8"
    # Main path and shortcut would round odd sizes differently.
    wide = name.startswith("dm-") and wide_resnet_size(name)
    if wide and any(side % 4 for side in image_shape[:2]):
        wanted = "whose sides are multiples of 4"
    if wanted:
        height, width = image_shape[:2]
        raise InputError(f"name={name!r} needs images {wanted}, not {height}x{width}")
