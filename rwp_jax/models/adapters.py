"""Makes builders of a `Classifier` from user-defined Flax linen or nnx modules with their own BatchNorm.

A module updates its running statistics itself, by a moving average, r <- decay * r + increment. Here a
forward must not do so: the training step folds moments in as often as the objective's reference does, and
not for forwards at perturbed weights that serve the gate only. So a forward runs on statistics of zero,
which yields the increment, and `fold` applies the module's own decay.
"""

import contextlib
import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import errors as flax_errors
from flax import linen, nnx
from jax import lax

from rwp_jax.errors import InputError, first_line, shown
from rwp_jax.models.classifier import Classifier
from rwp_jax.models.modules import Functions, linen_functions, nnx_functions
from rwp_jax.models.moving_averages import find_decays


def from_linen(make_module: Callable[..., linen.Module]) -> Callable[..., Classifier]:
    """Returns a builder, for `register_model`, that wraps a linen module.

    Args:
      make_module: called with num_classes, and with `axis_name` and `dtype` if it takes them, such as a
        module class with these attributes. `axis_name` is that of linen.BatchNorm, `dtype` that
        of activations. The module is called as module(images, train=True or False), images [B, H, W, C],
        and returns logits [B, num_classes]. Its collections may be `params` and `batch_stats`.

        While training, it must normalise by the batch's moments, draw no random numbers, and update its
        statistics as moving averages of moments, as linen.BatchNorm and nnx.BatchNorm do.

    Raises:
      InputError: if make_module cannot be called; when the network is built or first run, if the module
        does not meet these conditions.
    """
    return functools.partial(_build, _checked(make_module), linen_functions)


def from_nnx(make_module: Callable[..., nnx.Module]) -> Callable[..., Classifier]:
    """Returns a builder, for `register_model`, that wraps an nnx module.

    Args:
      make_module: called with num_classes and rngs, and with `axis_name` and `dtype` if it takes them, such
        as a module class whose constructor takes these. The module is called as module(images), images
        [B, H, W, C], after module.train() or module.eval(), and returns logits [B, num_classes]. Its
        variables may be nnx.Param and nnx.BatchStat.

        While training, it must normalise by the batch's moments, draw no random numbers, and update its
        statistics as moving averages of moments, as linen.BatchNorm and nnx.BatchNorm do.

    Raises:
      InputError: if make_module cannot be called; when the network is built or first run, if the module
        does not meet these conditions.
    """
    return functools.partial(_build, _checked(make_module), nnx_functions)


def _checked(make_module: Any) -> Callable:
    """Returns make_module; raises InputError if it cannot be called."""
    if not callable(make_module):
        raise InputError(
            f"make_module={shown(make_module)} must be a class or a function that makes a module"
        )
    return make_module


def _unwrapped(make_module: Callable) -> Callable:
    """Returns the function or class inside functools.partial."""
    while isinstance(make_module, functools.partial):
        make_module = make_module.func
    return make_module


def _takes(make_module: Callable, argument: str) -> bool:
    """Returns whether make_module takes the argument and functools.partial has not set it."""
    if isinstance(make_module, functools.partial):
        return argument not in make_module.keywords and _takes(make_module.func, argument)
    # Not the class itself: its metaclass's call may take anything, as that of nnx.Module does.
    is_class = isinstance(make_module, type)
    called = inspect.getattr_static(make_module, "__init__") if is_class else make_module
    parameters = inspect.signature(called).parameters
    anything = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return anything or argument in parameters


def _build(
    make_module: Callable,
    functions_of: Callable[[Callable, str], Functions],
    num_classes: int,
    *,
    dtype: str,
    axis_name: str | None,
) -> Classifier:
    """Builds the network of a module; parameters, statistics and logits are float32, or all float64."""
    name = getattr(_unwrapped(make_module), "__name__", type(make_module).__name__)
    param_dtype = jnp.float64 if dtype == "float64" else jnp.float32
    make = functools.partial(make_module, num_classes=num_classes)
    if _takes(make_module, "dtype"):
        make = functools.partial(make, dtype=jnp.dtype(dtype))
    elif dtype == "bfloat16":
        raise InputError(f"dtype='bfloat16' needs a module that takes dtype, which {name} does not")
    shares = _takes(make_module, "axis_name")
    alone = functions_of(make, name)
    over = functions_of(functools.partial(make, axis_name=axis_name), name) if shares else alone
    cast = lambda tree: jax.tree.map(lambda leaf: leaf.astype(param_dtype), tree)

    @contextlib.contextmanager
    def sizes_named(image_shape):
        """Makes errors of the module during tracing, such as mismatched sizes, name the module."""
        try:
            yield
        except flax_errors.InvalidRngError as error:
            raise InputError(
                f"make_module={name}: the module draws random numbers, as dropout does, which is not "
                f"supported ({first_line(error)})"
            ) from None
        except (TypeError, ValueError, flax_errors.FlaxError) as error:
            if isinstance(error, InputError):
                raise
            sizes = ", ".join(map(str, image_shape))
            described = f"{type(error).__name__}: {first_line(error)}"
            raise InputError(
                f"make_module={name} fails on images [B, {sizes}]: {described}"
            ) from error

    def init(key, image_shape):
        with sizes_named(image_shape):
            variables = cast(alone.init(key, tuple(image_shape)))
        images = jnp.zeros((2, *image_shape), param_dtype)
        params, batch_stats = variables
        check_logits("evaluating", lambda: alone.eval(params, batch_stats, images), image_shape)
        return variables

    def check_logits(when, forward, image_shape):
        """Raises InputError if a forward on 2 images fails or does not return their logits."""
        with sizes_named(image_shape):
            logits = jax.eval_shape(forward)
        shape = getattr(logits, "shape", None)
        given = f"a {type(logits).__name__}" if shape is None else f"shape {shape}"
        if shape != (2, num_classes):
            raise InputError(
                f"make_module={name}: logits of 2 images while {when} have {given}, must have shape "
                f"(2, {num_classes})"
            )

    @functools.cache
    def shapes(image_shape):
        key = jax.eval_shape(lambda: jax.random.key(0))
        return jax.eval_shape(functools.partial(init, image_shape=image_shape), key)

    @functools.cache
    def decays(image_shape):
        """Returns the decay of each running statistic in a forward, as concrete arrays."""
        with jax.ensure_compile_time_eval():
            variables = shapes(image_shape)
            images = np.zeros((2, *image_shape), param_dtype)
            zeros = jax.tree.map(jnp.zeros_like, variables)
            check_logits("training", lambda: alone.train(*zeros, images)[0], image_shape)
            return find_decays(alone.train, *variables, images, name)

    def train(params, images):
        image_shape = images.shape[1:]
        batch_stats = shapes(image_shape)[1]
        if batch_stats and axis_name and not shares and lax.axis_size(axis_name) > 1:
            raise InputError(
                f"make_module={name}: axis_name={axis_name!r} needs a module that takes axis_name, for its "
                "BatchNorm (or config.model.per_device_batch_norm=True)"
            )
        zeros = jax.tree.map(jnp.zeros_like, batch_stats)
        with sizes_named(image_shape):
            logits, increments = over.train(params, zeros, images)
            decay = jax.tree.map(jnp.asarray, decays(image_shape))
        return logits.astype(param_dtype), (cast(increments), cast(decay))

    def evaluate(params, batch_stats, images):
        return over.eval(params, batch_stats, images).astype(param_dtype)

    def fold(batch_stats, moments):
        return jax.tree.map(
            lambda stat, increment, decay: decay * stat + increment, batch_stats, *moments
        )

    return Classifier(init, train, evaluate, fold)
