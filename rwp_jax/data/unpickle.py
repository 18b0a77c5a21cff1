"""Reads untrusted pickles of NumPy arrays: nothing that they name is called."""

import pickle
import re

import numpy as np

from rwp_jax.errors import InputError


class ArraysOnly(pickle.Unpickler):
    """Unpickler of untrusted files that accepts only NumPy arrays of numbers and plain containers.

    NumPy's own callables are not accepted either, because a pickle may call them with any arguments and
    create arrays over memory that it does not own. Stand-ins replace the parts of pickled arrays.
    """

    def find_class(self, module, name):
        plain = module.replace("numpy.core.", "numpy._core.")  # the name in NumPy 1
        if (plain, name) not in _STAND_INS:
            raise InputError(
                f"the pickle asks for {module}.{name}, which is refused: only NumPy arrays and plain "
                "containers are read"
            )
        return _STAND_INS[plain, name]


class _Dtype:
    """Stand-in for numpy.dtype: receives the kind and size of a number, then its byte order."""

    def __init__(self, code, *_):
        if not re.fullmatch("[biuf][1248]", str(code)):
            raise InputError(f"the pickle holds an array of dtype {code!r}, must be numeric")
        self.dtype = np.dtype(code)

    def __setstate__(self, state):
        self.dtype = self.dtype.newbyteorder(state[1])


class PickledArray:
    """Stand-in for an array; `values` is the array once the state is set."""

    values = None

    def __setstate__(self, state):
        *_, shape, dtype, by_columns, data = state
        self.fill(data, dtype, shape, "F" if by_columns else "C")

    def fill(self, data, dtype, shape, order):
        if isinstance(data, str):  # bytes written by Python 2
            data = data.encode("latin1")
        # A copy that owns its memory, in native byte order.
        values = np.frombuffer(bytes(data), dtype.dtype).reshape(shape, order=order)
        self.values = values.astype(dtype.dtype.newbyteorder("="))


def _reconstruct(*_):
    return PickledArray()


def _from_buffer(data, dtype, shape, order):
    array = PickledArray()
    array.fill(data, dtype, shape, order)
    return array


def _scalar(dtype, data):
    return _from_buffer(data, dtype, (1,), "C").values[0].item()


def _encode(text, encoding):
    """Stand-in for _codecs.encode, with which protocols 0 to 2 write the bytes of an array."""
    if encoding != "latin1":
        raise InputError(f"the pickle asks for the encoding {encoding!r}, only latin1 is read")
    return text.encode("latin1")


_STAND_INS = {
    ("numpy", "ndarray"): _reconstruct,
    ("numpy", "dtype"): _Dtype,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): _encode,
}
