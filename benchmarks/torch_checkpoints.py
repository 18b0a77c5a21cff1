"""Round-trips state dicts of the authors' own classes through import and export.

    python -m benchmarks.torch_checkpoints --reference CHECKOUT [--only 'rst*'] [--images 16]

CHECKOUT is a clone of github.com/ChaojianYu/Robust-Weight-Perturbation. Each of its networks takes two
SGD steps from random weights and is saved as its script saves it, with its optimiser. `main.py`'s modes
import_torch and export_torch then import and export both. The output shows the largest difference between
our logits and theirs, relative to the largest logit; the number of images with the same predicted class;
and the number of entries of the file and of the momentum whose name, position, type or bits changed. The
class must load the exported file with strict=True. The exit status is 1 if anything but float32 rounding
differs.
"""

import contextlib
import io
import pathlib
import sys
import tempfile
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
import torch

from rwp_jax.configs import cifar10_at, cifar10_rst, cifar10_trades
from rwp_jax.errors import InputError, Parser
from rwp_jax.names import matches
from rwp_jax.parity.live.checkout import AT, RST, TRADES, Checkout, read_checkout
from rwp_jax.pytorch.export import export_torch
from rwp_jax.pytorch.import_ import import_torch
from rwp_jax.runs.loaded import load_run

TOLERANCE = 1e-12  # of logits in float64
DTYPES = ("float32", "float64")  # in this order, because float64 stays enabled


class Published(NamedTuple):
    """One of the authors' networks.

    Attributes:
      config: function that makes the config of the script that trains it.
      model: its name in the config.
      make: checkout -> the module.
      parallel: whether its script saves it inside DataParallel.
      nested: key of its state dict in the file, "" for none.
    """

    config: Callable
    model: str
    make: Callable[[Checkout], torch.nn.Module]
    parallel: bool = False
    nested: str = ""


def _wide(path: str, depth: int) -> Callable[[Checkout], torch.nn.Module]:
    return lambda checkout: checkout.modules[path].WideResNet(depth, 10, 10)


NETWORKS = {
    "at_preactresnet18": Published(
        cifar10_at.get_config,
        "preactresnet18",
        lambda checkout: checkout.modules[f"{AT}/preactresnet.py"].PreActResNet18(),
    ),
    "at_wrn-34-10": Published(
        cifar10_at.get_config, "wrn-34-10", _wide(f"{AT}/wideresnet.py", 34), parallel=True
    ),
    "trades_wrn-34-10": Published(
        cifar10_trades.get_config,
        "wrn-34-10",
        _wide(f"{TRADES}/models/wideresnet.py", 34),
        parallel=True,
    ),
    "rst_wrn-28-10": Published(
        cifar10_rst.get_config,
        "wrn-28-10",
        _wide(f"{RST}/models/wideresnet.py", 28),
        parallel=True,
        nested="state_dict",
    ),
}


class Result(NamedTuple):
    """Result for one network in one dtype; the fields are the table's columns."""

    error: float
    same_class: int
    classes: int
    images: int
    entries: int
    entries_changed: int
    momenta: int
    momenta_changed: int

    def failed(self, dtype: str) -> bool:
        return (
            self.same_class < self.images
            or self.entries_changed + self.momenta_changed > 0
            or (dtype == "float64" and self.error > TOLERANCE)
        )


def _images(config, count: int) -> tuple[np.ndarray, torch.Tensor]:
    """Draws images [B, H, W, C] in [0, 1]; also returns them as their scripts' input, [B, C, H, W]."""
    x = np.random.default_rng(0).random((count, 32, 32, 3)).astype(config.dtype)
    mean, std = (
        np.array(config.model[key] or default) for key, default in (("mean", 0), ("std", 1))
    )
    normalized = ((x - mean) / std).astype(config.dtype).transpose(0, 3, 1, 2)
    return x, torch.from_numpy(np.ascontiguousarray(normalized))


def _trained(network: Published, checkout: Checkout, images: torch.Tensor, seed: int):
    """Returns a network whose values have all moved from their initial ones, and its SGD."""
    torch.manual_seed(seed)
    module = network.make(checkout).to(images.dtype)
    sgd = torch.optim.SGD(module.parameters(), lr=0.001, momentum=0.9, weight_decay=5e-4)
    for _ in range(2):
        torch.nn.functional.cross_entropy(module(images[:2]), torch.tensor([3, 7])).backward()
        sgd.step()
    module.eval()
    with torch.no_grad():  # centres the logits: a random network would predict a single class
        *_, bias = module.parameters()
        bias -= module(images).mean(0)
    return module, sgd


def _changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> int:
    """Counts the entries that differ in name, position, type or bits."""
    same = sum(
        (name, a.dtype, a.shape) == (other, b.dtype, b.shape) and torch.equal(a, b)
        for (name, a), (other, b) in zip(before.items(), after.items(), strict=False)
    )
    return max(len(before), len(after)) - same


def _momenta(module: torch.nn.Module, sgd: torch.optim.SGD) -> dict[str, torch.Tensor]:
    state = {name: sgd.state[parameter] for name, parameter in module.named_parameters()}
    return {name: of["momentum_buffer"] for name, of in state.items() if of}


def _compare(
    network: Published, checkout: Checkout, dtype: str, images: int, directory: pathlib.Path
) -> Result:
    config = network.config()
    config.model.name, config.dtype = network.model, dtype
    x, normalized = _images(config, images)
    module, sgd = _trained(network, checkout, normalized, seed=0)
    theirs, their_sgd = directory / "model.pth", directory / "opt.pth"
    prefix = "module." if network.parallel else ""  # as DataParallel does, which itself needs GPUs
    content = {prefix + name: value for name, value in module.state_dict().items()}
    torch.save({network.nested: content} if network.nested else content, theirs)
    torch.save(sgd.state_dict(), their_sgd)

    workdir, ours, our_sgd = directory / "run", directory / "ours.pth", directory / "ours_opt.pth"
    with contextlib.redirect_stdout(io.StringIO()):  # hide their messages
        import_torch(config, workdir, theirs, their_sgd)
        export_torch(workdir, "last", ours, our_sgd)

    run = load_run(workdir, "last")
    logits = np.asarray(jax.jit(run.classifier.eval)(run.params, run.batch_stats, x))
    with torch.no_grad():
        expected = module(normalized).numpy()

    twin, twin_sgd = _trained(network, checkout, normalized, seed=1)
    exported = torch.load(ours, weights_only=True)
    exported = exported[network.nested] if network.nested else exported
    twin.load_state_dict({n.removeprefix(prefix): v for n, v in exported.items()}, strict=True)
    twin_sgd.load_state_dict(torch.load(our_sgd, weights_only=True))
    before, after = _momenta(module, sgd), _momenta(twin, twin_sgd)
    return Result(
        float(np.abs(logits - expected).max() / np.abs(expected).max()),
        int((logits.argmax(-1) == expected.argmax(-1)).sum()),
        len(set(expected.argmax(-1))),
        images,
        len(content),
        _changed(content, exported),
        len(before),
        _changed(before, after),
    )


def main() -> int:
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--reference", type=pathlib.Path, required=True)
    parser.add_argument("--only", default="*")
    parser.add_argument("--images", type=int, default=16)
    args = parser.parse_args()
    names = [name for name in NETWORKS if matches(name, args.only)]
    if not names:
        parser.error(f"--only={args.only} matches none of {', '.join(NETWORKS)}")
    try:
        checkout = read_checkout(args.reference)
    except InputError as error:
        parser.error(str(error))
    print(f"torch {torch.__version__}, jax {jax.__version__} on {jax.default_backend()}")
    columns = "logits       same class       entries changed  momenta changed"
    print(f"{'network':18} dtype     {columns}")
    failed = 0
    for dtype in DTYPES:
        for name in names:
            with tempfile.TemporaryDirectory() as directory:
                r = _compare(NETWORKS[name], checkout, dtype, args.images, pathlib.Path(directory))
            failed += r.failed(dtype)
            print(
                f"{name:18} {dtype:8} {r.error:8.1e}  "
                f"{f'{r.same_class} of {r.images}, {r.classes} classes':22}  "
                f"{f'{r.entries_changed} of {r.entries}':15}  {r.momenta_changed} of {r.momenta}"
                f"{'  FAILED' if r.failed(dtype) else ''}",
                flush=True,
            )
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
