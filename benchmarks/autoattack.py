"""Times AutoAttack, ours against the official PyTorch code, attack by attack.

    python -m benchmarks.autoattack --reference PATH (--workdir RUN | --cases DIR) [--norm l_inf|l_2|l_1]
        [--version standard|plus|rand] [--attacks apgd-ce,square] [--epsilon 0.031] [--examples 128]
        [--json FILE]

PATH is a checkout of https://github.com/fra31/auto-attack. Both codes attack the same images on the same
network in float32, in one process on the same cores. On each side, an attack gets the images that its
predecessors left robust. RUN is a run of main.py or zoo:NAME; DIR holds recorded runs, see
`rwp_jax.parity.autoattack`. Our times include compilation. Needs torch.
"""

import contextlib
import functools
import math
import os
import pathlib
import platform
import sys
import time
import warnings
from typing import NamedTuple

import jax
import numpy as np
import torch
from torch import nn

from benchmarks.torch_networks import Network
from rwp_jax.attacks.autoattack import autoattack
from rwp_jax.attacks.autoattack.suite import VERSIONS, attacks_of
from rwp_jax.distributed import devices
from rwp_jax.errors import Parser
from rwp_jax.files import write_json
from rwp_jax.models.convolution import prefer_eigen
from rwp_jax.names import OFFICIAL_NORMS, spelled
from rwp_jax.parity.autoattack import EPSILON, MEAN, STD, load_network, read_arrays
from rwp_jax.pytorch.export import own_entries
from rwp_jax.runs.loaded import load_run


class Victim(NamedTuple):
    """A network, as a PyTorch state dict (arrays) and as a JAX function, and float32 NHWC images."""

    name: str
    entries: dict
    mean: tuple
    std: tuple
    logits_fn: object
    x: np.ndarray
    y: np.ndarray
    norm: str = "l_inf"
    epsilon: float | None = None


def victim_of_cases(directory: pathlib.Path) -> Victim:
    clean = read_arrays(directory / "clean.npz")
    name, entries, logits_fn = load_network(directory, clean, "float32")
    x = clean["x"].astype(np.float32) / 255
    return Victim(name, entries, MEAN, STD, logits_fn, x, clean["y"])


def victim_of_run(workdir: str) -> Victim:
    run = load_run(workdir)
    params, batch_stats = jax.device_get((run.params, run.batch_stats))
    model = run.config.model
    logits_fn = functools.partial(run.classifier.eval, params, batch_stats)
    x = run.test_images.astype(np.float32) / 255
    threat, moments = run.config.threat, (model.mean, model.std)
    return Victim(
        *(model.name, own_entries(run), *moments, logits_fn, x, run.test_labels),
        *(threat.norm, threat.epsilon),
    )


def torch_twin(victim: Victim) -> nn.Module:
    """Builds the same network in PyTorch, for NCHW images in [0, 1]."""
    channels = victim.x.shape[-1]
    network = Network(victim.name, victim.logits_fn(victim.x[:1]).shape[1], channels)
    state = network.state_dict()
    entries = {n: torch.from_numpy(np.array(v, np.float32)) for n, v in victim.entries.items()}
    network.load_state_dict({name: entries.get(name, value) for name, value in state.items()})

    class Normalized(nn.Module):
        def __init__(self):
            super().__init__()
            shape = (1, channels, 1, 1)
            self.network = network
            mean, std = victim.mean or (0.0,) * channels, victim.std or (1.0,) * channels
            self.register_buffer("mean", torch.tensor(mean).reshape(shape))
            self.register_buffer("std", torch.tensor(std).reshape(shape))

        def forward(self, x):
            return self.network((x - self.mean) / self.std)

    return Normalized().eval()


@contextlib.contextmanager
def compile_clock():
    """Yields a one-element list that holds the seconds that XLA has spent compiling."""
    clock = [0.0]

    def add(event, seconds, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            clock[0] += seconds

    jax.monitoring.register_event_duration_secs_listener(add)
    yield clock
    jax.monitoring.unregister_event_duration_listener(add)


def run_ours(victim: Victim, x, y, norm, epsilon, attacks, batch_size):
    """Returns the result and the compilation seconds of each attack."""
    compiling, seen = {attack.name: 0.0 for attack in attacks}, [0.0]
    with compile_clock() as clock:

        def progress(moment):
            compiling[moment.attack] += clock[0] - seen[0]
            seen[0] = clock[0]

        result = autoattack(
            victim.logits_fn,
            x,
            y,
            norm,
            epsilon,
            "custom",
            attacks=attacks,
            batch_size=batch_size,
            progress=progress,
        )
    return result, compiling


def run_official(model, x, y, norm, epsilon, version, attacks, batch_size, device):
    """Yields the name, seconds and robust images of each attack of the official code, as it ends."""
    from autoattack import AutoAttack

    model = model.to(device)
    x = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).to(device)
    y = torch.from_numpy(y.astype(np.int64)).to(device)
    predict = lambda images: torch.cat([model(part).argmax(1) for part in images.split(batch_size)])
    adversary = AutoAttack(
        model,
        norm=OFFICIAL_NORMS[norm],
        eps=epsilon,
        version=version,
        seed=0,
        verbose=False,
        device=device,
    )
    with torch.no_grad():
        left = predict(x) == y
    for attack in attacks:
        seconds = 0.0
        if left.any():  # the official code does not accept an empty set
            adversary.attacks_to_run = [attack]
            begin = time.perf_counter()
            x_adv = adversary.run_standard_evaluation(x[left], y[left], bs=batch_size)
            if device != "cpu":
                torch.cuda.synchronize()
            seconds = time.perf_counter() - begin
            with torch.no_grad():
                left[left.clone()] = predict(x_adv) == y[left]
        yield attack, seconds, int(left.sum())


def main():
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--reference", type=pathlib.Path, required=True)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--workdir", help="a run's directory, or zoo:NAME")
    source.add_argument("--cases", type=pathlib.Path)
    parser.add_argument(
        "--norm", type=spelled, choices=["l_inf", "l_2", "l_1"], help="default: the run's, or l_inf"
    )
    parser.add_argument("--version", choices=list(VERSIONS), default="standard")
    parser.add_argument(
        "--epsilon", type=float, help="default: the run's, or 8/255 (l_inf), 0.5 (l_2), 12 (l_1)"
    )
    parser.add_argument(
        "--examples", type=int, help="number of images, the first ones; default: all"
    )
    parser.add_argument("--attacks", help="some of the version's, comma-separated; default: all")
    parser.add_argument("--batch_size", type=int, help="of our side; the official code uses 250")
    parser.add_argument("--json", type=pathlib.Path, help="also write the figures here")
    args = parser.parse_args()
    if not (args.reference / "autoattack" / "autoattack.py").is_file():
        parser.error(f"--reference={args.reference} is not a checkout of auto-attack")
    sys.path.insert(0, str(args.reference))
    prefer_eigen()
    devices.split_cpu()
    torch.set_num_threads(os.cpu_count())

    victim = victim_of_run(args.workdir) if args.workdir else victim_of_cases(args.cases)
    norm, epsilon = args.norm or victim.norm, args.epsilon
    if not epsilon:
        epsilon = victim.epsilon if norm == victim.norm and victim.epsilon else EPSILON[norm]
    x, y = victim.x[: args.examples], victim.y[: args.examples]
    twin = torch_twin(victim)
    with torch.no_grad():
        theirs = twin(torch.from_numpy(x[:8].transpose(0, 3, 1, 2).copy())).numpy()
    np.testing.assert_allclose(victim.logits_fn(x[:8]), theirs, rtol=1e-3, atol=1e-3)

    chosen = attacks_of(args.version, None, norm)
    if args.attacks:
        chosen = [attack for attack in chosen if attack.name in args.attacks.split(",")]
    attacks = [attack.name for attack in chosen]
    if not attacks:
        parser.error(f"--attacks={args.attacks} are not attacks of --version={args.version}")
    device = "cuda" if torch.cuda.is_available() and jax.default_backend() == "gpu" else "cpu"
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, {jax.devices()[0].device_kind}; jax "
        f"{jax.__version__}, torch {torch.__version__}; {victim.name}, {len(x)} images, {norm} "
        f"{epsilon:.4g}, {args.version}",
        flush=True,
    )
    warnings.simplefilter("ignore")
    begin = time.perf_counter()
    ours, compiling = run_ours(victim, x, y, norm, epsilon, chosen, args.batch_size)
    wall = time.perf_counter() - begin  # includes checks, as the official times do
    print("attack     robust ours/official   seconds ours (compiling)  official  ours/official")
    rows = {}

    def add(name, *row):
        robust, left, mine, compiled, theirs = rows[name] = row
        ratio = mine / theirs if theirs else math.nan
        seconds = f"{mine:12.1f}  {compiled:10.1f}  {theirs:8.1f}  {ratio:13.2f}"
        print(f"{name:9}  {robust:12}/{left:<8}   {seconds}", flush=True)
        if args.json:  # after each attack, so that an interrupted run keeps its results
            write_json(args.json, rows)

    official = (twin, x, y, norm, epsilon, args.version, attacks, 250, device)
    for attack, theirs, left in run_official(*official):
        robust = int(ours.robust_after[attack].sum())
        add(attack, robust, left, ours.seconds[attack], compiling[attack], theirs)
    compiled, theirs = (sum(row[i] for row in rows.values()) for i in (3, 4))
    add("all", *rows[attacks[-1]][:2], wall, compiled, theirs)


if __name__ == "__main__":
    main()
