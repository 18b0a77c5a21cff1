"""The networks by name, as pure functions of pixels in [0, 1]."""

import functools
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rwp_jax.errors import InputError
from rwp_jax.models.layers import BatchNorm, Conv, kaiming_normal_fan_out, torch_default_init
from rwp_jax.models.preact_resnet import preact_resnet18
from rwp_jax.models.wide_resnet import wide_resnet

DEEPEST, WIDEST = 1000, 100  # more is a slip of the finger, and would be built for hours
ACCEPTED = (
    "preactresnet18 or wrn-DEPTH-WIDTH with DEPTH = 6 n + 4, such as wrn-28-10 "
    f"(at most {DEEPEST} deep and {WIDEST} wide)"
)
DTYPES = ("float32", "bfloat16", "float64")


class Classifier(NamedTuple):
    """A network without state. Images are [B, H, W, C] pixels in [0, 1], logits [B, num_classes].

    Attributes:
      init: (key, image_shape) -> (params, batch_stats); image_shape is (H, W, C).
      train: (params, images) -> (logits, moments), normalised by the moments of the (global) batch.
        `moments` has the structure of batch_stats; see `layers.fold_moments`.
      eval: (params, batch_stats, images) -> logits, normalised by the running statistics.
    """

    init: Callable
    train: Callable
    eval: Callable


def check_name(name: str) -> tuple[int, int] | None:
    """Returns (depth, width) of a WideResNet, None for preactresnet18; raises InputError otherwise."""
    if name == "preactresnet18":
        return None
    match = re.fullmatch(r"wrn-(\d+)-(\d+)", name)
    depth, width = map(int, match.groups()) if match else (0, 0)
    if not (10 <= depth <= DEEPEST and (depth - 4) % 6 == 0 and 1 <= width <= WIDEST):
        raise InputError(f"config.model.name={name!r} is no known model: it must be {ACCEPTED}")
    return depth, width


def channels_and_classes(params) -> tuple[int, int]:
    """Channels of the images that a network with these parameters takes, and classes it tells apart."""
    return params["conv1"]["kernel"].shape[2], params["linear"]["bias"].shape[0]


def make_classifier(
    name: str,
    num_classes: int,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    dtype: str = "float32",
    axis_name: str | None = None,
) -> Classifier:
    """Builds the network `name`.

    Args:
      name: `preactresnet18` or `wrn-D-W`.
      num_classes: width of the logits.
      mean: per-channel mean in pixel units that the input is normalised by; empty for none.
      std: per-channel standard deviation, likewise.
      dtype: of the activations: float32, bfloat16 or float64 (which needs jax_enable_x64). Parameters,
        statistics and logits are float64 with float64, float32 otherwise.
      axis_name: mapped axis over which batch moments are shared, None on a single device.

    Raises:
      InputError: for an unknown name or dtype.
    """
    depth_width = check_name(name)
    if dtype not in DTYPES:
        raise InputError(f"config.dtype={dtype!r} must be one of {', '.join(DTYPES)}")
    param_dtype = jnp.float64 if dtype == "float64" else jnp.float32
    dtypes = {"dtype": jnp.dtype(dtype), "param_dtype": param_dtype}
    conv = functools.partial(
        Conv, kernel_init=kaiming_normal_fan_out if depth_width else torch_default_init, **dtypes
    )

    def network(use_running_average):
        norm = functools.partial(
            BatchNorm, use_running_average=use_running_average, axis_name=axis_name, **dtypes
        )
        common = {
            "num_classes": num_classes,
            "conv": conv,
            "norm": norm,
            "param_dtype": param_dtype,
        }
        return wide_resnet(*depth_width, **common) if depth_width else preact_resnet18(**common)

    def normalize(images):
        images = images.astype(param_dtype)
        if len(mean):
            images = (images - np.asarray(mean, param_dtype)) / np.asarray(std, param_dtype)
        return images

    def init(key, image_shape):
        variables = network(True).init(key, jnp.zeros((1, *image_shape), param_dtype))
        return variables["params"], variables["batch_stats"]

    def train(params, images):
        logits, updated = network(False).apply(
            {"params": params}, normalize(images), mutable=["moments"]
        )
        return logits, updated["moments"]

    def evaluate(params, batch_stats, images):
        variables = {"params": params, "batch_stats": batch_stats}
        return network(True).apply(variables, normalize(images))

    return Classifier(jax.jit(init, static_argnums=1), train, evaluate)
