"""Networks of one's own, Flax linen or nnx modules with their own BatchNorm, as builders of a `Classifier`.

A module updates its running statistics itself, by a moving average, r <- decay * r + increment. Here a
forward must not: the training step folds moments in as often as the objective's reference does, and not
where a forward is evaluated at perturbed weights for the gate alone. So a forward runs on statistics of
zero, which leaves the increment, and `fold` does the rest with the module's own decay.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import errors as flax_errors
from flax import linen, nnx
from jax import lax

from rwp_jax.errors import InputError
from rwp_jax.models.classifier import Classifier


class _Functions(NamedTuple):
    """A module's functions of trees of arrays; `batch_stats` is empty where it keeps none.

    Attributes:
      init: (key, image_shape) -> (params, batch_stats).
      train: (params, batch_stats, images) -> (logits, updated batch_stats).
      eval: (params, batch_stats, images) -> logits.
    """

    init: Callable
    train: Callable
    eval: Callable


def from_linen(make_module: Callable[..., linen.Module]) -> Callable[..., Classifier]:
    """A builder, for `register_model`, of a linen module.

    Args:
      make_module: called with num_classes, and with `axis_name` and `dtype` where it takes them; a module
        class with these attributes will do. axis_name is for linen.BatchNorm, dtype that of activations.
        The module is called as module(images, train=True or False), images [B, H, W, C], and returns
        logits [B, num_classes]. Its collections may be `params` and `batch_stats`.

    Raises:
      InputError: when the network is built or first run, where the module is not so.
    """
    return functools.partial(_build, make_module, _linen_functions)


def from_nnx(make_module: Callable[..., nnx.Module]) -> Callable[..., Classifier]:
    """A builder, for `register_model`, of an nnx module.

    Args:
      make_module: called with num_classes and rngs, and with `axis_name` and `dtype` where it takes them; a
        module class whose constructor takes these will do. The module is called as module(images), images
        [B, H, W, C], after module.train() or module.eval(), and returns logits [B, num_classes]. Its
        variables may be nnx.Param and nnx.BatchStat.

    Raises:
      InputError: when the network is built or first run, where the module is not so.
    """
    return functools.partial(_build, make_module, _nnx_functions)


def _linen_functions(make: Callable[[], linen.Module], name: str) -> _Functions:
    module = make()
    if "train" not in inspect.signature(type(module).__call__).parameters:
        raise InputError(f"make_module={name}: its __call__ must take train, True while training")

    def init(key, image_shape):
        variables = module.init(key, jnp.zeros((1, *image_shape)), train=False)
        others = sorted(variables.keys() - {"params", "batch_stats"})
        if others:
            raise InputError(
                f"make_module={name}: it keeps {', '.join(others)} beside params and batch_stats"
            )
        return variables.get("params", {}), variables.get("batch_stats", {})

    def train(params, batch_stats, images):
        variables = {"params": params, "batch_stats": batch_stats}
        logits, updated = module.apply(variables, images, train=True, mutable=["batch_stats"])
        return logits, updated.get("batch_stats", {})

    def evaluate(params, batch_stats, images):
        variables = {"params": params, "batch_stats": batch_stats}
        return module.apply(variables, images, train=False)

    return _Functions(init, train, evaluate)


def _nnx_functions(make: Callable[..., nnx.Module], name: str) -> _Functions:
    module = nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0)))
    graph, *states = nnx.split(module, nnx.Param, nnx.BatchStat, ...)
    params, batch_stats, others = states
    if jax.tree.leaves(others):
        raise InputError(
            f"make_module={name}: it keeps {', '.join(sorted(_flat(others)))} beside nnx.Param and "
            "nnx.BatchStat (random draws, as of dropout, are not supported)"
        )

    def merged(flat_params, flat_stats):
        return nnx.merge(graph, _like(params, flat_params), _like(batch_stats, flat_stats))

    def init(key, image_shape):
        del image_shape  # an nnx module knows its own
        _, *states = nnx.split(make(rngs=nnx.Rngs(key)), nnx.Param, nnx.BatchStat)
        return tuple(map(_flat, states))

    def train(flat_params, flat_stats, images):
        module = merged(flat_params, flat_stats)
        module.train()
        logits = module(images)
        return logits, _flat(nnx.state(module, nnx.BatchStat))

    def evaluate(flat_params, flat_stats, images):
        module = merged(flat_params, flat_stats)
        module.eval()
        return module(images)

    return _Functions(init, train, evaluate)


def _flat(state) -> dict[str, Any]:
    """An nnx state as one dict, path -> array: paths may hold numbers, which checkpoints do not."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def _like(state, flat: dict[str, Any]):
    """The arrays of `_flat` as a state of this structure."""
    return jax.tree.unflatten(jax.tree.structure(state), [flat[name] for name in _flat(state)])


def _unwrapped(make_module: Callable) -> Callable:
    """The function or class within functools.partial."""
    while isinstance(make_module, functools.partial):
        make_module = make_module.func
    return make_module


def _takes(make_module: Callable, argument: str) -> bool:
    """Whether it takes the argument, and has not been given it by functools.partial."""
    if isinstance(make_module, functools.partial):
        return argument not in make_module.keywords and _takes(make_module.func, argument)
    # A class may have a metaclass whose call takes anything, as nnx.Module has.
    is_class = isinstance(make_module, type)
    called = inspect.getattr_static(make_module, "__init__") if is_class else make_module
    parameters = inspect.signature(called).parameters
    anything = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return anything or argument in parameters


def _build(
    make_module: Callable,
    functions_of: Callable[[Callable, str], _Functions],
    num_classes: int,
    *,
    dtype: str,
    axis_name: str | None,
) -> Classifier:
    """The network of a module, with parameters, statistics and logits in float32, or all in float64."""
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

    def init(key, image_shape):
        variables = cast(alone.init(key, tuple(image_shape)))
        images = jnp.zeros((2, *image_shape), param_dtype)
        logits = jax.eval_shape(evaluate, *variables, images)
        if logits.shape != (2, num_classes):
            raise InputError(
                f"make_module={name}: logits of 2 images have shape {logits.shape}, must be "
                f"(2, {num_classes})"
            )
        return variables

    @functools.cache
    def shapes(image_shape):
        key = jax.eval_shape(lambda: jax.random.key(0))
        return jax.eval_shape(functools.partial(init, image_shape=image_shape), key)

    @functools.cache
    def decays(image_shape):
        """How much of each running statistic a forward leaves, as numbers."""
        with jax.ensure_compile_time_eval():
            fill = lambda tree, value: jax.tree.map(
                lambda s: jnp.full(s.shape, value, s.dtype), tree
            )
            params, batch_stats = shapes(image_shape)
            images = jnp.zeros((2, *image_shape), param_dtype)
            # Weights and images of zero have moments of zero: what is left of a statistic is the decay.
            # Of one, where a weight is divided by its norm.
            run = jax.jit(lambda weight, stats: alone.train(fill(params, weight), stats, images)[1])
            for weight in (0, 1):
                at = jax.device_get([run(weight, fill(batch_stats, value)) for value in (0, 1, 2)])
                if all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(at)):
                    break
        decay = jax.tree.map(lambda zero, one: one - zero, *at[:2])
        straight = jax.tree.map(lambda zero, one, two: np.allclose(two - one, one - zero), *at)
        if not all(jax.tree.leaves(straight)):
            raise InputError(
                f"make_module={name}: its running statistics are no moving averages of batch moments"
            )
        return decay

    def train(params, images):
        image_shape = images.shape[1:]
        batch_stats = shapes(image_shape)[1]
        if batch_stats and axis_name and not shares and lax.axis_size(axis_name) > 1:
            raise InputError(
                f"config.model.per_device_batch_norm=False needs a module that takes axis_name, for its "
                f"BatchNorm, which {name} does not"
            )
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), batch_stats)
        try:
            logits, increments = over.train(params, zeros, images)
            decay = jax.tree.map(jnp.asarray, decays(image_shape))
        except (flax_errors.InvalidRngError, ValueError) as error:
            if isinstance(error, InputError) or "rng" not in str(error).lower():
                raise
            raise InputError(
                f"make_module={name}: the module draws random numbers while training, as dropout does, "
                f"which is not supported ({str(error).splitlines()[0]})"
            ) from None
        return logits.astype(param_dtype), (cast(increments), cast(decay))

    def evaluate(params, batch_stats, images):
        return over.eval(params, batch_stats, images).astype(param_dtype)

    def fold(batch_stats, moments):
        return jax.tree.map(
            lambda stat, increment, decay: decay * stat + increment, batch_stats, *moments
        )

    return Classifier(init, train, evaluate, fold)
