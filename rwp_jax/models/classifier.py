"""Builds networks by name, as pure functions of pixels in [0, 1]."""

import functools
import math
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rwp_jax.errors import (
    InputError,
    check_choice,
    check_integer,
    check_number,
    first_line,
    shown,
)
from rwp_jax.models.layers import (
    RUNNING_MOMENTUM,
    BatchNorm,
    Conv,
    fold_moments,
    kaiming_normal_fan_out,
    torch_default_init,
)
from rwp_jax.models.normalization import ACTIVATIONS
from rwp_jax.models.preact_resnet import preact_resnet18
from rwp_jax.models.precision import require_x64
from rwp_jax.models.sizes import ACCEPTED, WIDE_RESNET, check_image_size, wide_resnet_size
from rwp_jax.models.wide_resnet import wide_resnet
from rwp_jax.registry import Registry

DTYPES = ("float32", "bfloat16", "float64")


class Classifier(NamedTuple):
    """A network as pure functions. Images are [B, H, W, C] pixels in [0, 1], logits [B, num_classes].

    Parameters and running statistics are trees of arrays, float32 or float64; logits have their dtype.

    Attributes:
      init: (key, image_shape) -> (params, batch_stats); image_shape is (H, W, C).
      train: (params, images) -> (logits, moments), normalised by the moments of the (global) batch.
      eval: (params, batch_stats, images) -> logits, normalised by the running statistics.
      fold: (batch_stats, moments) -> running statistics after one training-mode forward. The default
        is PyTorch's rule, for moments with the structure of batch_stats: see `layers.fold_moments`.
      prepare: params -> converted params, which train and eval also take and need not convert again; for
        loops in which the parameters stay the same.
    """

    init: Callable
    train: Callable
    eval: Callable
    fold: Callable = fold_moments
    prepare: Callable = lambda params: params

    def shapes(self, image_shape: tuple[int, ...]) -> tuple[Any, Any]:
        """Returns params and batch_stats for images [H, W, C] as ShapeDtypeStructs, computing nothing."""
        return jax.eval_shape(lambda: self.init(jax.random.key(0), image_shape))


def _build(
    make_module: Callable,
    kernel_init,
    num_classes: int,
    *,
    dtype: str,
    axis_name: str | None,
    activation: str,
    bn_momentum: float,
    remat: bool,
    dm: bool = False,
) -> Classifier:
    """Builds a network of this package; `make_module` takes num_classes, conv, norm, remat and param_dtype.

    `dm` is for networks of Gowal et al. (2020) as RobustBench ported them to PyTorch: their own activation
    is SiLU, and convolutions of stride 2 pad zeros behind rows and columns only.
    """
    param_dtype = _param_dtype(dtype)
    dtypes = {"dtype": jnp.dtype(dtype), "param_dtype": param_dtype}
    conv = functools.partial(Conv, kernel_init=kernel_init, same=dm, **dtypes)
    norm_of = functools.partial(
        BatchNorm,
        activation=ACTIVATIONS[activation or ("silu" if dm else "relu")],
        axis_name=axis_name,
        **dtypes,
    )

    def network(use_running_average):
        norm = functools.partial(norm_of, use_running_average=use_running_average)
        common = {"conv": conv, "norm": norm, "remat": remat, "param_dtype": param_dtype}
        return make_module(num_classes=num_classes, **common)

    def init(key, image_shape):
        variables = network(True).init(key, jnp.zeros((1, *image_shape), param_dtype))
        return variables["params"], variables["batch_stats"]

    def train(params, images):
        logits, updated = network(False).apply({"params": params}, images, mutable=["moments"])
        return logits, updated["moments"]

    def evaluate(params, batch_stats, images):
        return network(True).apply({"params": params, "batch_stats": batch_stats}, images)

    def prepare(params):
        return jax.tree.map(lambda p: p.astype(dtype) if p.ndim == 4 else p, params)

    fold = functools.partial(fold_moments, momentum=bn_momentum)
    return Classifier(init, train, evaluate, fold, prepare)


_DM_PREACT = functools.partial(preact_resnet18, raw_shortcut=True)
MODELS = Registry(
    "model",
    {
        "preactresnet18": functools.partial(_build, preact_resnet18, torch_default_init),
        "dm-preactresnet18": functools.partial(_build, _DM_PREACT, torch_default_init, dm=True),
    },
)


def register_model(name: str, builder: Callable[..., Classifier]) -> None:
    """Makes a user-defined network available as `config.model.name`.

    Runs record the module that calls this function, and import it when they are evaluated or loaded.

    Args:
      name: name of the network; the package's own names are taken.
      builder: called as builder(num_classes, dtype=DTYPE, axis_name=NAME), dtype one of DTYPES and
        axis_name the mapped axis over which batch moments are shared (None: a single device); returns a
        `Classifier` that takes normalised images. `from_linen` and `from_nnx` make builders.

    Raises:
      InputError: if the name is taken or the builder cannot be called.
    """
    if re.fullmatch(WIDE_RESNET, str(name)):
        raise InputError(f"name={name!r} is taken: names like it are the package's WideResNets")
    MODELS.register(name, builder, sys._getframe(1).f_globals)


def _builder(name: str) -> Callable[..., Classifier]:
    """Returns the builder of a network; raises InputError if the name is unknown."""
    if isinstance(name, str) and name in MODELS:
        return MODELS[name]
    size = wide_resnet_size(name) if isinstance(name, str) else None
    if size is None:
        registered = [f"{other} (registered)" for other in MODELS if MODELS.origin(other)]
        raise InputError(
            f"name={name!r} is not a known model: it must be {', '.join([ACCEPTED, *registered])}"
        )
    module = functools.partial(wide_resnet, *size)
    return functools.partial(_build, module, kaiming_normal_fan_out, dm=name.startswith("dm-"))


# What registered networks decide themselves, with the values that ask nothing of them.
_OWN = {"activation": "", "bn_momentum": RUNNING_MOMENTUM, "remat": False}


def _built(name: str, builder: Callable, *arguments, own: dict[str, Any], **keywords) -> Classifier:
    """Calls a builder; raises InputError if a user-defined one does not return a Classifier.

    `own` holds the settings of _OWN.
    """
    if not MODELS.origin(name):
        return builder(*arguments, **own, **keywords)
    for key, usual in _OWN.items():
        if own[key] != usual:
            raise InputError(
                f"{key}={own[key]!r} is for the package's own networks: {name!r} is registered, and sets "
                f"its own (leave {key}={usual!r})"
            )
    try:
        network = builder(*arguments, **keywords)
    except InputError:
        raise
    except (Exception, SystemExit) as error:  # whatever the user's builder raises
        described = f"{type(error).__name__}: {first_line(error)}"
        raise InputError(f"name={name!r}: its builder fails ({described})") from error
    if not isinstance(network, Classifier):
        given = type(network).__name__
        raise InputError(
            f"name={name!r}: its builder returns a {given}, must return a Classifier: from_linen and "
            "from_nnx make a builder from a module"
        )
    return network


def _param_dtype(dtype: str):
    return jnp.float64 if dtype == "float64" else jnp.float32


def _check_moments(mean, std) -> None:
    """Raises InputError if the mean and standard deviation cannot be used to normalise."""
    finite = ("finite numbers", math.isfinite)
    positive = ("finite positive numbers", lambda value: 0 < value < math.inf)
    for name, values, (accepted, holds) in (("mean", mean, finite), ("std", std, positive)):
        if isinstance(values, str) or len(np.shape(values)) != 1:
            raise InputError(f"{name}={shown(values)} must be {accepted}, one per channel")
        for value in values:
            check_number(name, value, accepted, holds)
    if len(mean) != len(std):
        raise InputError(
            f"mean= has {len(mean)} numbers and std= has {len(std)}: both need one per channel, or none"
        )


def make_classifier(
    name: str,
    num_classes: int,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    dtype: str = "float32",
    axis_name: str | None = None,
    activation: str = "",
    bn_momentum: float = RUNNING_MOMENTUM,
    remat: bool = False,
) -> Classifier:
    """Builds the network `name`.

    Args:
      name: `preactresnet18` or `wrn-DEPTH-WIDTH`; `dm-preactresnet18` or `dm-wrn-DEPTH-WIDTH`, the networks
        of Gowal et al. (2020) as RobustBench ported them; or a name registered with `register_model`.
      num_classes: width of the logits.
      mean: per-channel mean, in pixel units, for normalising the input; empty for no normalisation.
      std: per-channel standard deviation, likewise.
      dtype: of the activations: float32, bfloat16 or float64 (which needs jax_enable_x64). Parameters,
        statistics and logits are float64 with float64, float32 otherwise.
      axis_name: mapped axis over which batch moments are shared, None on a single device.
      activation: `relu` or `silu`; "" for the network's own, SiLU in `dm-` networks and ReLU in others.
      bn_momentum: weight of the batch in an update of running statistics, in (0, 1], as PyTorch's momentum.
      remat: whether gradients recompute each residual block from its input, which takes less memory and
        more time, and changes numbers by rounding only.

    Raises:
      InputError: if the name, dtype or activation is unknown, a number is out of range, an activation,
        momentum or remat is given for a registered network, or float64 is used without jax_enable_x64.
    """
    builder = _builder(name)
    check_integer("num_classes", num_classes, 1)
    check_choice("dtype", dtype, DTYPES)
    if dtype == "float64":
        require_x64("dtype='float64'")
    if not isinstance(axis_name, str | None):
        raise InputError(f"axis_name={shown(axis_name)} must be the name of a mapped axis, or None")
    _check_moments(mean, std)
    if not isinstance(activation, str) or activation not in ("", *ACTIVATIONS):
        accepted = " or ".join(ACTIVATIONS)
        raise InputError(
            f"activation={shown(activation)} must be {accepted}, or '' for the network's own"
        )
    in_range = lambda momentum: 0 < momentum <= 1
    bn_momentum = check_number("bn_momentum", bn_momentum, "in (0, 1]", in_range)
    if not isinstance(remat, bool):
        raise InputError(f"remat={shown(remat)} must be True or False")
    own = {"activation": activation, "bn_momentum": bn_momentum, "remat": remat}
    network = _built(name, builder, num_classes, own=own, dtype=dtype, axis_name=axis_name)
    param_dtype = _param_dtype(dtype)

    def normalize(images):
        check_image_size(name, images.shape[1:])
        if not jnp.issubdtype(images.dtype, jnp.floating):
            raise InputError(f"images= are {images.dtype}, must be floating-point in [0, 1]")
        images = images.astype(param_dtype)
        if len(mean):
            if images.shape[-1] != len(mean):
                raise InputError(
                    f"images= have {images.shape[-1]} channels, mean= and std= have {len(mean)}"
                )
            images = (images - np.asarray(mean, param_dtype)) / np.asarray(std, param_dtype)
        return images

    jitted_init = jax.jit(network.init, static_argnums=1)

    def init(key, image_shape):
        check_image_size(name, image_shape)
        return jitted_init(key, tuple(image_shape))

    return network._replace(
        init=init,
        train=lambda params, images: network.train(params, normalize(images)),
        eval=lambda params, batch_stats, images: network.eval(
            params, batch_stats, normalize(images)
        ),
    )
