"""Checks of arguments that all attacks share."""

import contextlib
import math
import operator

import jax
import jax.numpy as jnp
import numpy as np

from rwp_jax.errors import InputError, check_number, first_line, shown

EVALUATION_MODE = (
    "use_running_average=True and deterministic=True (flax.linen), model.eval() (flax.nnx), "
    "eqx.nn.inference_mode(model) (Equinox)"
)
_TRAINING_MODE = f"; a network in training mode? For evaluation: {EVALUATION_MODE}"
# Flax's errors for running statistics that would change and for dropout without a key.
_ERRORS_IN_TRAINING_MODE = ("TraceContextError", "ModifyScopeVariableError", "InvalidRngError")
ROUNDING = 1e-6  # pixels this far outside [0, 1] are accepted as rounding errors


def is_known(value) -> bool:
    """Returns whether a value is concrete, not traced within `jax.jit`."""
    return not isinstance(value, jax.core.Tracer)


def check_traced(name: str, value: jax.Array, accepted: str, *kinds: type) -> None:
    """Raises InputError unless a traced value is a scalar of one of the kinds, such as `jnp.integer`."""
    if value.shape or not any(jnp.issubdtype(value.dtype, kind) for kind in kinds):
        raise InputError(f"{name}= is {value.dtype}{list(value.shape)}, must be {accepted}")


def as_arrays(x, y) -> tuple[jax.Array, jax.Array]:
    """Converts images and labels to JAX arrays; raises InputError if that is not possible."""
    try:
        labels = np.asarray(y) if is_known(y) else np.zeros(0, int)
        arrays = None if _is_wide(labels) else (jnp.asarray(x), jnp.asarray(y))
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"x= and y= must be arrays: {first_line(error)}") from None
    if arrays is None:
        raise InputError("y= has labels that need more than 32 bits, must be in [0, 2^31)")
    return arrays


def _is_wide(labels: np.ndarray) -> bool:
    """Returns whether some labels overflow the int32 to which JAX converts them without x64."""
    if labels.dtype.kind not in "iu" or not labels.size:
        return False
    return labels.min() < -(2**31) or labels.max() >= 2**31


def check_images(x, y) -> None:
    """Raises InputError unless x are images [B, H, W, C] in [0, 1], B > 0, and y their labels [B].

    Args:
      x: NumPy array, or JAX array, which may be traced.
      y: NumPy array, or JAX array, which may be traced.
    """
    if not x.ndim and is_known(x):
        raise InputError(f"x={shown(x.item())} must be images [B, H, W, C], at least one")
    if x.ndim != 4 or not x.size:
        raise InputError(f"x= is {list(x.shape)}, must be images [B, H, W, C], at least one")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise InputError(f"x= is {x.dtype}, must be floating-point images in [0, 1]")
    if is_known(x):
        pixels = np.asarray(x)
        outside = ~((pixels >= -ROUNDING) & (pixels <= 1 + ROUNDING))  # NaN too
        if outside.any():
            images = np.flatnonzero(outside.any((1, 2, 3)))
            low, high = float(pixels.min()), float(pixels.max())
            found = "some are NaN" if np.isnan(low) else f"they are in [{low:.12g}, {high:.12g}]"
            raise InputError(
                f"x= must have pixels in [0, 1], {found}: {outside.sum()} of {outside.size} pixels are "
                f"outside, in {len(images)} images, the first is number {images[0]}"
            )
    if y.shape != x.shape[:1] or not jnp.issubdtype(y.dtype, jnp.integer):
        raise InputError(f"y= is {y.dtype}{list(y.shape)}, must be integer labels [{len(x)}]")


def diameter(norm: str, image_shape: tuple[int, ...]) -> float:
    """The largest distance between two images (H, W, C) in [0, 1], in `l_inf`, `l_2` or `l_1`."""
    pixels = math.prod(image_shape)
    return {"l_inf": 1.0, "l_2": math.sqrt(pixels), "l_1": pixels}[norm]


def check_radius(name: str, value, norm: str, image_shape: tuple[int, ...] | None) -> float:
    """Returns a radius or step size as a float; raises InputError unless it is in [0, `diameter`).

    Without the shape of the images, only L_inf has a diameter.
    """
    if norm == "l_inf":
        shape, largest = "", diameter(norm, ())
    elif image_shape is None:
        shape, largest = "", math.inf
    else:
        shape, largest = f" and images {list(image_shape)}", diameter(norm, image_shape)
    accepted = f"in [0, {largest:g}) (pixels are in [0, 1]) for {norm}{shape}"
    return check_number(name, value, accepted, lambda radius: 0 <= radius < largest)


def check_classes(y, num_classes: int) -> None:
    """Raises InputError if labels are outside the network's classes."""
    if is_known(y):
        low, high = int(np.asarray(y).min()), int(np.asarray(y).max())
        if low < 0 or high >= num_classes:
            raise InputError(
                f"y= has labels in [{low}, {high}], must be in [0, {num_classes}), the classes of logits_fn"
            )


def check_key(key) -> jax.Array:
    """Returns a random key for a seed, which may be traced, or for a typed or raw key of JAX.

    Raises:
      InputError: for anything else.
    """
    described = shown(key)
    try:
        dtype, shape = getattr(key, "dtype", None), np.shape(key)
        described = f" of shape {list(shape)}" if shape else described
        if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key):
            made = key
        elif shape:
            made = jax.random.wrap_key_data(key)
        elif not is_known(key) and jnp.issubdtype(key.dtype, jnp.integer):
            made = jax.random.key(key)
        else:
            made = jax.random.key(operator.index(key))
        if made.shape or isinstance(key, bool):
            raise TypeError
        return made
    except (TypeError, ValueError, AttributeError, OverflowError):
        raise InputError(f"key={described} must be one seed or one random key of JAX") from None


@contextlib.contextmanager
def logits_fn_named(
    image_shape: tuple[int, ...], arguments: str = "(images)", name: str = "logits_fn"
):
    """Turns what the user's logits_fn raises in the `with` block into an InputError that names it."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        kind = type(error).__name__
        raise InputError(
            f"{name}{arguments} fails on images {list(image_shape)}: {kind}: {first_line(error)}"
            f"{_likely_cause(kind, image_shape)}"
        ) from error


def _likely_cause(kind: str, image_shape: tuple[int, ...]) -> str:
    """Returns what an error of this kind suggests, to follow its message, or nothing."""
    if kind in _ERRORS_IN_TRAINING_MODE:
        return _TRAINING_MODE
    if kind == "CallCompactUnboundModuleError":
        return "; a Flax module needs its variables: lambda x: model.apply(variables, x)"
    if kind == "ScopeCollectionNotFound":
        return "; are its running statistics, batch_stats, among the variables?"
    if len(image_shape) == 4 and image_shape[1] in (1, 3) and image_shape[3] not in (1, 3):
        return "; are the images [B, C, H, W]? Flax networks take [B, H, W, C]"
    return ""


def check_logits(logits, image_shape: tuple[int, ...], name: str = "logits_fn") -> int:
    """Returns the number of classes; raises InputError unless `logits` are floating-point [B, classes]."""
    is_array = hasattr(logits, "shape") and hasattr(logits, "dtype")
    fits = (
        is_array
        and len(logits.shape) == 2
        and logits.shape[0] == image_shape[0]
        and logits.shape[1] >= 2
        and jnp.issubdtype(logits.dtype, jnp.floating)
    )
    if not fits:
        given = f"{logits.dtype}{list(logits.shape)}" if is_array else f"a {type(logits).__name__}"
        # Flax's apply returns (logits, statistics) with mutable=.
        hint = _TRAINING_MODE if isinstance(logits, tuple) else ""
        raise InputError(
            f"{name} returns {given} for images {list(image_shape)}: it must return floating-point "
            f"logits [B, classes] of at least two classes{hint}"
        )
    return logits.shape[1]


def check_logits_fn(logits_fn, x) -> int:
    """Returns the number of classes; raises InputError if logits_fn fails or does not return logits."""
    with logits_fn_named(x.shape):
        logits = jax.eval_shape(logits_fn, x)
    return check_logits(logits, x.shape)


def check_losses(name: str, losses, batch_size: int) -> None:
    """Raises InputError unless `losses`, the output shape of argument `name`, is floating-point [B]."""
    is_array = isinstance(losses, jax.ShapeDtypeStruct)
    given = f"{losses.dtype}{list(losses.shape)}" if is_array else f"a {type(losses).__name__}"
    if (
        not is_array
        or losses.shape != (batch_size,)
        or not jnp.issubdtype(losses.dtype, jnp.floating)
    ):
        raise InputError(
            f"{name}= returns {given}, must return floating-point losses [{batch_size}], one per example"
        )
