"""Time of a training step of a config, ours and PyTorch's, on whatever device there is.

    python -m benchmarks.step_time --config configs/cifar10_at_rwp.py [--batch_sizes 128,1024]
        [--dtype bfloat16] [--model wrn-10-1] [--k 0,3,10] [--rivals float32,fast] [--json FILE]

Ours is the trainer's step on images made up, with the gate wide open, so that it takes exactly k steps of
weight ascent. PyTorch does the same AT or TRADES step in the way of the authors' code, which always takes
K2 steps: `float32` as PyTorch ships it (TF32 in convolutions), `fast` with bfloat16 autocast, channels last
and torch.compile. Both run in this process in turn; printed are medians, and ratios of theirs to ours.
Operations are XLA's count of a forward pass times the passes of a step (see benchmarks/flops.py);
utilisation is their rate over that of a large matrix product in the same type, measured in this run.
"""

import argparse
import importlib.metadata
import json
import pathlib
import statistics
import sys
import time

import jax
import numpy as np
from ml_collections import config_flags

from benchmarks import products
from rwp_jax import experiment, parallel
from rwp_jax.cost import data_size, forward_flops, passes_of_a_step
from rwp_jax.data.augment import make_augment
from rwp_jax.models.convolution import prefer_eigen
from rwp_jax.train_step import TrainingSet, init_state, make_train_step
from rwp_jax.weight_perturbation import make_weight_perturbation

SECONDS = 2.0  # that a measurement lasts at least


class OurStep:
    """The trainer's step on `batch_size` images; call it with the number of steps of weight ascent."""

    def __init__(self, config, batch_size: int):
        size = data_size(config)
        config.batch_size = batch_size
        experiment.check_config(config)
        recipe = experiment.build(config, size.num_classes, 1).recipe
        gamma = config.weight_perturbation.gamma
        wide_open = make_weight_perturbation("rwp", gamma, 1)
        augment = make_augment(**config.augment.to_dict())

        def step(state, data, indices, key, k):
            at_k = recipe._replace(perturbation=wide_open._replace(steps=k), perturb_from_step=0)
            rate = lambda _: config.optimizer.learning_rate
            return make_train_step(at_k, augment, rate, parallel.AXIS)(state, data, indices, key)

        split = (False, False, True, False, False)
        self._step = parallel.data_parallel(step, split, config.parallel, donate=(0,))
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (batch_size, *size.image_shape), dtype=np.uint8)
        labels = rng.integers(0, size.num_classes, batch_size, dtype=np.int32)
        data = TrainingSet(images, labels, np.ones(batch_size, np.float32))
        self._data, self._key = parallel.replicate((data, jax.random.key(1)))
        state = init_state(recipe, jax.random.key(0), size.image_shape)
        self._state = parallel.replicate(state)
        self._indices = rng.permutation(batch_size).astype(np.int32)
        begin = time.perf_counter()
        self(0)
        self.compile_seconds = time.perf_counter() - begin

    def __call__(self, k: int, repeats: int = 1) -> float:
        """Seconds a step, over several that are queued at once."""
        begin = time.perf_counter()
        for _ in range(repeats):
            self._state, metrics = self._step(
                self._state, self._data, self._indices, self._key, np.int32(k)
            )
        taken = int(metrics["perturbation_steps"])
        if taken != k:
            raise SystemExit(f"{taken} steps of weight ascent were taken instead of {k}")
        return (time.perf_counter() - begin) / repeats


class Rival:
    """PyTorch's step on the same number of images; see benchmarks/torch_reference.py."""

    def __init__(self, config, batch_size: int, fast: bool):
        import torch

        from benchmarks.torch_reference import STEPS

        objective = "at" if config.objective.name == "at" else "trades"
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self._cuda = torch.cuda if device == "cuda" else None
        self._step = STEPS[objective](config.model.name, float("inf"), device, fast)
        self._x = torch.rand(batch_size, 3, 32, 32, device=device)
        self._y = torch.randint(10, (batch_size,), device=device)
        if self._cuda:
            self._cuda.reset_peak_memory_stats()
        self()

    def __call__(self) -> float:
        """Seconds of a step, which fetches its loss as their script does."""
        begin = time.perf_counter()
        self._step(self._x, self._y)
        return time.perf_counter() - begin

    def peak_bytes(self) -> int | None:
        return self._cuda.max_memory_allocated() if self._cuda else None


def peak_bytes() -> int | None:
    """Of the first device since the process began, None where the device does not say."""
    return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def measure(
    config, batch_size: int, ks: list[int], rivals: list[str], repeats: int, product: float
):
    """A row of figures for each k."""
    ours = OurStep(config, batch_size)
    memory = peak_bytes()
    theirs = {name: Rival(config, batch_size, name == "fast") for name in rivals}
    size = data_size(config)
    forward = batch_size * forward_flops(config.model.name, size.image_shape, size.num_classes)
    rows = []
    for k in ks:
        ours(k)
        queued = max(1, round(SECONDS / ours(k)))
        rounds = [
            (ours(k, queued), *(rival() for rival in theirs.values())) for _ in range(repeats)
        ]
        seconds = [statistics.median(column) for column in zip(*rounds, strict=True)]
        operations = forward * passes_of_a_step(config, k)
        rate = operations / seconds[0] / jax.device_count()
        rows.append(
            {
                "model": config.model.name,
                "dtype": config.dtype,
                "batch_size": batch_size,
                "k": k,
                "seconds": seconds[0],
                "images_per_second": batch_size / seconds[0],
                "tflop": operations / 1e12,
                "tflop_per_second": rate / 1e12,
                "utilisation": rate / product,
                "compile_seconds": ours.compile_seconds,
                "peak_bytes": memory,
                "rivals": {
                    name: {
                        "seconds": theirs_seconds,
                        "ratio": statistics.median(r[i] / r[0] for r in rounds),
                        "ratio_min": min(r[i] / r[0] for r in rounds),
                        "ratio_max": max(r[i] / r[0] for r in rounds),
                        "peak_bytes": theirs[name].peak_bytes(),
                    }
                    for i, (name, theirs_seconds) in enumerate(
                        zip(theirs, seconds[1:], strict=True), 1
                    )
                },
            }
        )
        print(line(rows[-1]), flush=True)
    return rows


def line(row: dict) -> str:
    gigabytes = lambda size: "-" if size is None else f"{size / 1e9:.1f}"
    text = (
        f"{row['model']:15} {row['batch_size']:5} {row['k']:3}  {1e3 * row['seconds']:9.1f}  "
        f"{row['images_per_second']:8.0f}  {row['tflop']:7.2f}  {row['tflop_per_second']:8.2f}  "
        f"{row['utilisation']:5.0%}  {gigabytes(row['peak_bytes']):>5}"
    )
    for name, rival in row["rivals"].items():
        text += (
            f"   {name} {1e3 * rival['seconds']:.1f} ms, {rival['ratio']:.2f} "
            f"({rival['ratio_min']:.2f}-{rival['ratio_max']:.2f}), {gigabytes(rival['peak_bytes'])} GB"
        )
    return text


def load_config(path: str):
    """The config of configs/NAME.py or configs/NAME.py:ARGUMENT."""
    return config_flags.config_flags.ConfigFileFlagParser("config", None).parse(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/cifar10_at_rwp.py")
    parser.add_argument("--batch_sizes", default="128,1024")
    parser.add_argument("--model", help="instead of the config's")
    parser.add_argument("--dtype", help="instead of the config's")
    parser.add_argument("--k", default="0,3,10", help="steps of weight ascent")
    parser.add_argument("--rivals", default="float32,fast", help='of float32 and fast; "" for none')
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=pathlib.Path, help="also write the figures here")
    args = parser.parse_args()
    config = load_config(args.config)
    config.model.name = args.model or config.model.name
    config.dtype = args.dtype or config.dtype
    if config.dtype == "float32":
        prefer_eigen()
    ks = [int(k) for k in args.k.split(",")]
    rivals = [name for name in args.rivals.split(",") if name]
    product = products.rate(config.dtype)
    packages = ("jax", "jaxlib", *(["torch"] if rivals else []))
    versions = {package: importlib.metadata.version(package) for package in packages}
    device = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    print(device, versions, f"a matrix product in {config.dtype}: {product / 1e12:.2f} TFLOP/s")
    print(
        "model           batch   k         ms  images/s    TFLOP  TFLOP/s    use  GB peak   PyTorch: ms, "
        "ratio to ours (range), GB peak"
    )
    rows = []
    for batch_size in map(int, args.batch_sizes.split(",")):
        rows += measure(config, batch_size, ks, rivals, args.repeats, product)
    if args.json:
        content = {
            "command": "python -m benchmarks.step_time " + " ".join(sys.argv[1:]),
            "device": device,
            "versions": versions,
            "product_tflop_per_second": product / 1e12,
            "rows": rows,
        }
        args.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
