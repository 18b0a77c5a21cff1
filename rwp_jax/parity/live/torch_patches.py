"""Runs the authors' code on any device and dtype with given random numbers, recording its values."""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple
from unittest import mock

import numpy as np
import torch


class Noted(NamedTuple):
    """Values recorded during one training step.

    Attributes:
      images: the attack's images after 0, 1, ... steps, and other inputs that passed the same hook.
      gates: number of examples below c_min at each ascent step.
      v: the weight perturbation after each ascent step, by parameter name.
      losses: every scalar that was differentiated; the last is the loss of the update.
    """

    images: list[torch.Tensor]
    gates: list[int]
    v: list[dict[str, torch.Tensor]]
    losses: list[float]


@contextlib.contextmanager
def on_device(
    device: torch.device, dtype: torch.dtype, draws: list[np.ndarray], noted: Noted
) -> Iterator[None]:
    """Makes the authors' code run on `device` in `dtype` with given random draws.

    Inside the context, `.cuda()` moves tensors to the device, new tensors have the dtype, and `uniform_`,
    `normal_` and `randn` consume `draws` in order. `.type(torch.cuda.FloatTensor)`, which the authors apply
    only to the indicator of the Loss Stationary Condition, casts to dtype and records how many are set.
    """
    left = list(draws)
    to_type, backward = torch.Tensor.type, torch.Tensor.backward

    def draw(shape):
        if not left or left[0].shape != tuple(shape):
            raise ValueError(f"random numbers of an unexpected shape {tuple(shape)} are drawn")
        return torch.as_tensor(left.pop(0), dtype=dtype)

    def fill(tensor, *_args, **_kwargs):
        with torch.no_grad():
            return tensor.copy_(draw(tensor.shape))

    def cast(tensor, wanted=None, *args, **kwargs):
        if wanted is not torch.cuda.FloatTensor:
            return to_type(tensor, wanted, *args, **kwargs)
        noted.gates.append(int(tensor.sum()))
        return tensor.to(dtype)

    def differentiate(tensor, *args, **kwargs):
        noted.losses.append(float(tensor.detach()))
        return backward(tensor, *args, **kwargs)

    patches = (
        (torch.Tensor, "cuda", lambda tensor, *_args, **_kwargs: tensor.to(device)),
        (torch.Tensor, "type", cast),
        (torch.Tensor, "uniform_", fill),
        (torch.Tensor, "normal_", fill),
        (torch.Tensor, "backward", differentiate),
        (torch, "randn", lambda *shape, **_: draw(shape[0] if len(shape) == 1 else shape)),
    )
    previous, tf32 = torch.get_default_dtype(), torch.backends.cudnn.allow_tf32
    torch.set_default_dtype(dtype)
    torch.backends.cudnn.allow_tf32 = False  # float32 on a GPU means float32
    try:
        with contextlib.ExitStack() as stack:
            for owner, name, replacement in patches:
                stack.enter_context(mock.patch.object(owner, name, replacement))
            yield
    finally:
        torch.set_default_dtype(previous)
        torch.backends.cudnn.allow_tf32 = tf32


@contextlib.contextmanager
def noting_v(module, perturbed: tuple, noted: Noted) -> Iterator[None]:
    """Records v whenever the module's `add_into_weights` adds it to one of the networks `perturbed`.

    RWP adds v to its proxy before each further ascent step, and to the model after the last one.
    """
    add = module.add_into_weights

    def note(network, diff, coeff=1.0):
        if diff and coeff > 0 and any(network is p for p in perturbed):
            noted.v.append({name: coeff * value.detach() for name, value in diff.items()})
        return add(network, diff, coeff)

    with mock.patch.object(module, "add_into_weights", note):
        yield
