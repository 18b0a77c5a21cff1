"""Converts the weights of any PyTorch network to the variables of a Flax module, and back."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from rwp_jax.errors import InputError, first_line, function_of_the_user, shown
from rwp_jax.importing.layouts import FROM_TORCH
from rwp_jax.names import by_path, listed

Axes = tuple[int, ...]
Transform = Axes | Callable[[np.ndarray], np.ndarray]
Path = str | tuple[str, ...]
Names = Mapping[str, Any] | Callable[[str], Any]
_COUNTER = "num_batches_tracked"  # of BatchNorm in PyTorch, which reads it only without a momentum

_NNX_VALUE = "/value"  # ends the paths of nnx.State


class _Target(NamedTuple):
    path: str
    transform: Transform | None


def _entries(source: Any) -> dict[str, Any]:
    """Returns the state dict of a module or of itself."""
    source = source.state_dict() if callable(getattr(source, "state_dict", None)) else source
    if not isinstance(source, Mapping) or not all(isinstance(name, str) for name in source):
        raise InputError(f"source={shown(source)} must be a torch.nn.Module or its state dict")
    return dict(source)


def _array(name: str, value: Any) -> np.ndarray:
    """Returns a tensor or an array as a NumPy array; bfloat16 as float32, which holds it exactly."""
    if callable(getattr(value, "detach", None)):
        value = value.detach().cpu()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value
        try:
            return value.numpy()
        except (TypeError, RuntimeError) as error:  # sparse or quantised
            raise InputError(f"source= has {name}: {first_line(error)}") from None
    if not (hasattr(value, "shape") and hasattr(value, "dtype")):
        raise InputError(f"source= has {name}={shown(value)}, must be a tensor or an array")
    return np.asarray(value)


def _target(name: str, names: Names) -> _Target | None:
    """Returns where an entry belongs, None if it is left out."""
    if callable(names):
        with function_of_the_user("names"):
            value = names(name)
    elif name in names:
        value = names[name]
    elif name.rpartition(".")[2] == _COUNTER:
        return None
    else:
        raise InputError(f"names= lacks {name!r}: map it to a path, or to None to leave it out")
    if value is None:
        return None
    transform = None
    # (path, axes) or (path, function); a path itself may be a tuple of texts.
    if isinstance(value, tuple) and len(value) == 2 and not isinstance(value[1], str):
        value, transform = value
        if not callable(transform):
            transform = _axes(name, transform)
    if isinstance(value, tuple) and all(isinstance(part, str) for part in value):
        value = "/".join(value)
    if not isinstance(value, str):
        raise InputError(
            f"names= has {shown(value)} for {name!r}, must be a path such as 'params/conv1/kernel', "
            "(path, axes), (path, function) or None"
        )
    return _Target(value.strip("/"), transform)


def _axes(name: str, axes: Any) -> Axes:
    is_order = isinstance(axes, tuple | list) and all(type(axis) is int for axis in axes)
    if not is_order or sorted(axes) != list(range(len(axes))):
        raise InputError(
            f"names= has axes {shown(axes)} for {name!r}, must be an order such as (2, 3, 1, 0)"
        )
    return tuple(axes)


def _default_axes(path: str, rank: int) -> Axes:
    """Returns the axes of numpy.transpose from PyTorch's layout: only kernels are transposed."""
    is_kernel = path.rpartition("/")[2] == "kernel"
    return FROM_TORCH.get(rank, tuple(range(rank))) if is_kernel else tuple(range(rank))


def _leaves(template: Any, argument: str) -> dict[str, Any]:
    named = by_path(template)
    if not named or not all(hasattr(leaf, "shape") for leaf in named.values()):
        raise InputError(f"{argument}= must be a tree of arrays or of jax.ShapeDtypeStruct")
    if all(path.endswith(_NNX_VALUE) for path in named):
        named = {path.removesuffix(_NNX_VALUE): leaf for path, leaf in named.items()}
    return named


def _transformed(name: str, value: np.ndarray, target: _Target) -> np.ndarray:
    if callable(target.transform):
        with function_of_the_user("names"):
            return np.asarray(target.transform(value))
    axes = target.transform or _default_axes(target.path, value.ndim)
    if len(axes) != value.ndim:
        raise InputError(f"names= has axes {list(axes)} for {name!r} of {list(value.shape)}")
    return np.transpose(value, axes)


def _cast(what: str, value: np.ndarray, dtype) -> np.ndarray:
    """Converts the dtype; raises InputError if that would change a number."""
    with np.errstate(all="ignore"):
        cast = np.array(value, dtype, order="C")
        same = np.array_equal(cast.astype(value.dtype), value, equal_nan=value.dtype.kind == "f")
    if not same:
        raise InputError(
            f"{what} is {value.dtype}, would be rounded in {np.dtype(dtype)}: convert one of them first"
        )
    return cast


def convert(source: Any, names: Names, template: Any) -> Any:
    """Converts a state dict of PyTorch to the variables of a Flax module, bit for bit.

    A leaf named `kernel` is transposed from PyTorch's layout: convolutions from [out, in, height, width]
    to [height, width, in, out], with one or three lengths likewise, linear layers from [out, in] to
    [in, out]. Every other leaf is taken as it is. Where this is wrong, `names` states the axes or a
    function: a linear layer behind a flattened image counts its inputs by channel in PyTorch and by
    position in Flax, and a transposed convolution mirrors its window.

    Args:
      source: torch.nn.Module, or its state dict: name -> tensor or array.
      names: name in PyTorch -> path in `template`, such as `params/conv1/kernel`; a dict, or a function of
        the name. Instead of a path, (path, axes) gives the axes of `numpy.transpose`, (path, function) a
        function from the array in PyTorch to the array in Flax, and None leaves the entry out. A dict need
        not have `num_batches_tracked`.
      template: tree with the structure, shapes and dtypes of the result, such as
        `jax.eval_shape(module.init, jax.random.key(0), images)`, or an `nnx.State`, whose paths have no
        `params`.

    Returns:
      A tree like `template`, of NumPy arrays.

    Raises:
      InputError: naming the entry, if one is missing, unknown, of another shape, there twice, or would be
        rounded in the template's dtype.
    """
    wants = _leaves(template, "template")
    found: dict[str, np.ndarray] = {}
    origin: dict[str, str] = {}
    for name, value in _entries(source).items():
        target = _target(name, names)
        if target is None:
            continue
        if target.path not in wants:
            raise InputError(
                f"names= has {target.path!r} for {name!r}, which template= lacks: it has {listed(wants)}"
            )
        if target.path in found:
            raise InputError(f"names= has {target.path!r} for {origin[target.path]!r} and {name!r}")
        leaf = wants[target.path]
        array = _transformed(name, _array(name, value), target)
        if array.shape != tuple(leaf.shape):
            raise InputError(
                f"source= has {name!r} of {list(value.shape)}, which becomes {list(array.shape)}; "
                f"{target.path} of template= is {list(leaf.shape)}"
            )
        found[target.path] = _cast(f"source= has {name!r}, which", array, leaf.dtype)
        origin[target.path] = name
    missing = [path for path in wants if path not in found]
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise InputError(f"names= gives no entry for {missing[0]}{more}")
    return jax.tree.unflatten(jax.tree.structure(template), list(map(found.get, wants)))


def convert_back(variables: Any, names: Names, like: Any) -> dict[str, np.ndarray]:
    """Converts the variables of a Flax module to a state dict of PyTorch: the inverse of `convert`.

    Args:
      variables: tree of arrays.
      names: as for `convert`; functions of arrays cannot be inverted.
      like: torch.nn.Module, or a state dict, with the names, shapes and dtypes of the result. Entries that
        `names` leaves out are taken from it.

    Returns:
      Name in PyTorch -> array, in the order of `like`, for
      `module.load_state_dict({name: torch.from_numpy(array) for name, array in ...})`.

    Raises:
      InputError: naming the entry, if one is missing, has another shape, would be rounded, or is converted
        by a function.
    """
    leaves = _leaves(variables, "variables")
    found: dict[str, np.ndarray] = {}
    used = set()
    for name, value in _entries(like).items():
        target, held = _target(name, names), _array(name, value)
        if target is None:
            found[name] = held
            continue
        if callable(target.transform):
            raise InputError(f"names= converts {name!r} by a function, which cannot be inverted")
        if target.path not in leaves:
            raise InputError(f"names= has {target.path!r} for {name!r}, which variables= lacks")
        array = np.asarray(leaves[target.path])
        axes = target.transform or _default_axes(target.path, array.ndim)
        turned = np.transpose(array, np.argsort(axes)) if len(axes) == array.ndim else array
        if turned.shape != held.shape:
            raise InputError(
                f"variables= has {target.path} of {list(array.shape)}, which becomes "
                f"{list(turned.shape)}; {name!r} of like= is {list(held.shape)}"
            )
        found[name] = _cast(f"variables= has {target.path}, which", turned, held.dtype)
        used.add(target.path)
    unused = [path for path in leaves if path not in used]
    if unused:
        more = f" (and {len(unused) - 1} more)" if len(unused) > 1 else ""
        raise InputError(f"names= gives no entry of like= for {unused[0]}{more}")
    return found
