"""The authors' side: calls their classes and functions in the order of their scripts."""

import contextlib
import re
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from rwp_jax.parity import inputs
from rwp_jax.parity.live import checkout as files
from rwp_jax.parity.live.checkout import FOLDERS, Checkout
from rwp_jax.parity.live.setting import CLASSES, Setting
from rwp_jax.parity.live.torch_patches import Noted, noting_v, on_device
from rwp_jax.parity.live.trace import Step, ascent, by_step, thin

PROXY_RATE = {"at": 0.01}  # learning rate of the proxy's SGD; the other scripts use the model's
UNUSED = "sub_block1."  # a block of RST's WideResNet that the forward pass never uses


class Rig(NamedTuple):
    """Objects that one of their scripts creates.

    Attributes:
      model, optimizer: the trained network and its optimizer.
      proxy: the weight perturbation's copy of the network, on which it ascends the loss.
      adversary: their weight perturbation, None if there is none.
    """

    model: torch.nn.Module
    proxy: torch.nn.Module
    optimizer: torch.optim.SGD
    adversary: Any


def _network(checkout: Checkout, setting: Setting, device, dtype) -> torch.nn.Module:
    """Builds their network with weights drawn from the parameters' names."""
    if setting.model == "preactresnet18":
        make = checkout.modules[f"{files.AT}/preactresnet.py"].PreActResNet18
        network = make(num_classes=CLASSES)
    else:
        depth, width = map(int, re.fullmatch(r"wrn-(\d+)-(\d+)", setting.model).groups())
        inside = "" if setting.objective == "at" else "models/"
        module = checkout.modules[f"{FOLDERS[setting.objective]}/{inside}wideresnet.py"]
        network = module.WideResNet(depth=depth, num_classes=CLASSES, widen_factor=width)
    network.to(device, dtype).load_state_dict(
        {
            name: torch.as_tensor(inputs.tensor(name, value.shape)) if value.ndim else value
            for name, value in network.state_dict().items()
        }
    )
    return network


def _rig(checkout: Checkout, setting: Setting, device, dtype) -> Rig:
    constants, kind = setting.constants(), setting.objective
    model, proxy, second = (_network(checkout, setting, device, dtype) for _ in range(3))
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=constants["lr"],
        momentum=constants["momentum"],
        weight_decay=constants["weight_decay"],
        nesterov=constants["nesterov"],
    )
    proxy_optimizer = torch.optim.SGD(proxy.parameters(), lr=PROXY_RATE.get(kind, constants["lr"]))
    gamma, adversary = constants["gamma"], None
    module = checkout.modules.get(f"{FOLDERS[kind]}/utils_{setting.perturbation}.py")
    if setting.perturbation == "awp":
        make = module.AdvWeightPerturb if kind == "at" else module.TradesAWP
        adversary = make(model, proxy, proxy_optimizer, gamma)
    elif setting.perturbation == "rwp":
        make = module.RobustWeightPerturb if kind == "at" else module.TradesRWP
        adversary = make(model, second, proxy, proxy_optimizer, gamma)
    return Rig(model, proxy, optimizer, adversary)


def _at_step(checkout: Checkout, setting: Setting, rig: Rig, noted: Noted, device) -> Callable:
    """Returns (x, y) -> None: one step of AT's script, the body of its loop over batches."""
    constants = setting.constants()
    code = checkout.defined(files.AT_SCRIPT, torch=torch, F=F, nn=torch.nn, **_means(checkout))
    normalize = code["normalize"]

    def noting(images):
        noted.images.append(images.detach())
        return normalize(images)

    code["normalize"] = noting  # attack_pgd normalises the attacked images with it
    lsc = {"LSC_loss": constants["c_min"]} if setting.perturbation == "rwp" else {}

    def step(x, y):
        model, adversary = rig.model, rig.adversary
        delta = code["attack_pgd"](
            model,
            x,
            y,
            constants["eps"],
            constants["alpha"],
            constants["pgd_steps"],
            1,
            setting.norm,
        )
        x_adv = normalize(torch.clamp(x + delta.detach(), min=0, max=1))
        model.train()
        if adversary:
            v = adversary.calc_awp(inputs_adv=x_adv, targets=y, **lsc)
            adversary.perturb(v)
        loss = torch.nn.CrossEntropyLoss()(model(x_adv), y)
        rig.optimizer.zero_grad()
        loss.backward()
        rig.optimizer.step()
        if adversary:
            adversary.restore(v)

    return step


def _means(checkout: Checkout) -> dict[str, Any]:
    return checkout.defined(f"{files.AT}/utils.py")


def _train_arguments(setting: Setting) -> tuple[types.SimpleNamespace, int]:
    """Returns the scripts' `args`, as read by `train` of TRADES and RST, and the epoch."""
    constants = setting.constants()
    perturbs = setting.perturbation != "none"
    args = types.SimpleNamespace(
        beta=constants["beta"],
        robustWP=int(setting.perturbation == "rwp"),
        awp_warmup=0 if perturbs else np.inf,
        # TRADES
        num_steps=constants["pgd_steps"],
        norm=setting.norm,
        # RST
        loss="trades",
        distance=setting.norm,
        epsilon=constants["eps"],
        pgd_num_steps=constants["pgd_steps"],
        pgd_step_size=constants["alpha"],
        entropy_weight=0,
        log_interval=1,
    )
    return args, 1


def _trades_step(checkout: Checkout, setting: Setting, rig: Rig, noted: Noted, device) -> Callable:
    """Returns (x, y) -> None: TRADES's `train` on one batch."""
    args, epoch = _train_arguments(setting)
    code = checkout.defined(
        files.TRADES_SCRIPT,
        torch=torch,
        F=F,
        optim=torch.optim,
        Variable=torch.autograd.Variable,
        device=device,
        args=args,
        epsilon=args.epsilon,
        step_size=args.pgd_step_size,
        print=lambda *_: None,
    )
    adversary = rig.adversary
    return lambda x, y: code["train"](
        rig.model, [(x, y)], rig.optimizer, epoch, adversary, adversary
    )


def _rst_step(checkout: Checkout, setting: Setting, rig: Rig, noted: Noted, device) -> Callable:
    """Returns (x, y) -> None: RST's `train` on one batch."""
    args, epoch = _train_arguments(setting)
    code = checkout.defined(
        files.RST_SCRIPT,
        torch=torch,
        trades_loss=checkout.modules[f"{files.RST}/losses.py"].trades_loss,
        logging=types.SimpleNamespace(info=lambda *_: None),
        epoch_size=1,
    )
    adversary = rig.adversary
    return lambda x, y: code["train"](
        args, rig.model, device, [(x, y)], rig.optimizer, epoch, adversary, adversary
    )


MAKE_STEP = {"at": _at_step, "trades": _trades_step, "rst": _rst_step}


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy().copy()


def their_steps(checkout: Checkout, setting: Setting, device: str, dtype: str) -> list[Step]:
    """Runs the training steps of a setting in `dtype`, float64 or float32; returns what they computed.

    The first item holds only the logits before the first step. Exceptions of the authors' code propagate.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecation warnings of newer PyTorch versions
        return list(_steps(checkout, setting, torch.device(device), getattr(torch, dtype)))


def _steps(checkout: Checkout, setting: Setting, device, dtype) -> Iterator[Step]:
    constants, folder = setting.constants(), FOLDERS[setting.objective]
    noted = Noted([], [], [], [])
    on = lambda draws: on_device(device, dtype, draws, noted)
    rig = _rig(checkout, setting, device, dtype)
    with on([]):
        step = MAKE_STEP[setting.objective](checkout, setting, rig, noted, device)
        normalize = _normalization(checkout, setting)
    first = normalize(_images(setting.draws(0).x, device, dtype))
    yield {"logits": by_step([_logits(rig, first)])}
    for s in range(setting.steps):
        draws = setting.draws(s)
        for values in noted:
            values.clear()
        x, y = _images(draws.x, device, dtype), torch.as_tensor(draws.y, device=device)
        with contextlib.ExitStack() as stack:
            stack.enter_context(on(draws.random))
            if rig.adversary:
                module = checkout.modules[f"{folder}/utils_{setting.perturbation}.py"]
                stack.enter_context(noting_v(module, (rig.model, rig.proxy), noted))
            if setting.objective != "at":
                note = lambda _, args: noted.images.append(args[0].detach())
                stack.callback(rig.model.register_forward_pre_hook(note).remove)
            step(x, y)
        yield {
            "logits": by_step([_logits(rig, first)]),
            "delta": by_step(_deltas(noted.images, x)[: constants["pgd_steps"] + 1]),
            "gates": by_step([noted.gates]) if setting.perturbation == "rwp" else {},
            "v": ascent(thin({n: _array(a) for n, a in _used(v.items())}) for v in noted.v),
            "loss": by_step([noted.losses[-1]]),
            **_state(rig),
        }


def _deltas(images: list[torch.Tensor], x: torch.Tensor) -> list[np.ndarray]:
    """Returns the differences from x [n, H, W, C] of all recorded images that are not x itself."""
    return [_array((i - x).permute(0, 2, 3, 1)) for i in images if not torch.equal(i, x)]


def _used(entries) -> Iterator[tuple[str, torch.Tensor]]:
    return ((name, value) for name, value in entries if not name.startswith(UNUSED))


def _state(rig: Rig) -> Step:
    """Returns weights, momentum and running statistics."""
    momentum = lambda parameter: rig.optimizer.state[parameter]["momentum_buffer"]
    parameters = dict(_used(rig.model.named_parameters()))
    buffers = _used(rig.model.named_buffers())
    return {
        "weights": {name: _array(p) for name, p in parameters.items()},
        "momentum": {name: _array(momentum(p)) for name, p in parameters.items()},
        "statistics": {name: _array(b) for name, b in buffers if b.ndim},
    }


def _images(x: np.ndarray, device, dtype) -> torch.Tensor:
    return torch.as_tensor(x.transpose(0, 3, 1, 2).copy(), device=device, dtype=dtype)


def _normalization(checkout: Checkout, setting: Setting) -> Callable:
    """Returns the normalisation that their script applies before the network: AT's, or none."""
    if setting.objective != "at":
        return lambda images: images
    return checkout.defined(files.AT_SCRIPT, torch=torch, **_means(checkout))["normalize"]


def _logits(rig: Rig, images: torch.Tensor) -> np.ndarray:
    """Computes logits in eval mode; leaves the model in training mode, as at the start of a batch."""
    rig.model.eval()
    with torch.no_grad():
        logits = _array(rig.model(images))
    rig.model.train()
    return logits
