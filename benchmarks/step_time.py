"""Times a training step of a config, ours and PyTorch's, on the available device.

    python -m benchmarks.step_time --config configs/cifar10_at_rwp.py [--batch_sizes 128,1024]
        [--dtype bfloat16] [--model wrn-10-1] [--k 0,3,10] [--rivals float32,fast] [--evaluation]
        [--seconds 2] [--json FILE]

Ours is the trainer's step on random images, with the gate always open, so that it takes exactly k
weight-ascent steps. PyTorch runs the same AT or TRADES step as the authors' code does, which always takes
K2 steps: `float32` with PyTorch's defaults (TF32 in convolutions), `fast` with bfloat16 autocast, channels
last and torch.compile. Both run in turn in this process; the output shows medians, and ratios of their time
to ours. Operations are those of a forward pass's matrix products times the passes of a step (see
benchmarks/flops.py); utilisation is their rate relative to that of a large matrix product of the same
dtype, measured in this run. On devices with a known data sheet, the floor by the compiled program's counts
(rwp_jax/hardware/counts.py) is shown next to the time. --evaluation also times one batch of the evaluation
after an epoch. FILE is rewritten after every row, so that an interrupted run keeps its measurements.
"""

import importlib.metadata
import pathlib
import statistics
import sys
import time
from collections.abc import Iterator

import jax

from benchmarks import products
from benchmarks.our_step import OurEvaluation, OurStep
from rwp_jax.command_line.config_file import load_config
from rwp_jax.errors import Parser
from rwp_jax.files import write_json
from rwp_jax.hardware.cost import data_size, forward_flops, passes_of_a_step
from rwp_jax.models.convolution import prefer_eigen
from rwp_jax.training import experiment


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
        """Returns the seconds of a step, including fetching its loss as their script does."""
        begin = time.perf_counter()
        self._step(self._x, self._y)
        return time.perf_counter() - begin

    def peak_bytes(self) -> int | None:
        return self._cuda.max_memory_allocated() if self._cuda else None


def peak_bytes() -> int | None:
    """Returns the first device's peak memory since the process started, None if it is not reported."""
    return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def measure(
    config, batch_size: int, ks: list[int], rivals: list[str], repeats: int, lasting: float
) -> Iterator[dict]:
    """Yields a row of figures for each k, first with our times only, then again with those of each rival.

    Our times come first because compiling a rival takes minutes; then ours and the rival run in turn.
    """
    ours = OurStep(config, batch_size)
    memory = peak_bytes()
    size = data_size(config)
    forward = batch_size * forward_flops(config.model.name, size.image_shape, size.num_classes)
    rows = {}
    for k in ks:
        ours(k)
        queued = max(1, round(lasting / ours(k)))
        seconds = statistics.median(ours(k, queued) for _ in range(repeats))
        operations = forward * passes_of_a_step(config, k)
        rows[k] = {
            "model": config.model.name,
            "dtype": config.dtype,
            "batch_size": batch_size,
            "k": k,
            "seconds": seconds,
            "floor_seconds": ours.floor(k),
            "images_per_second": batch_size / seconds,
            "tflop": operations / 1e12,
            "tflop_per_second": operations / seconds / jax.device_count() / 1e12,
            "compile_seconds": ours.compile_seconds,
            "peak_bytes": memory,
            "rivals": {},
        }
        yield rows[k]
    for name in rivals:
        rival = Rival(config, batch_size, name == "fast")
        for k, row in rows.items():
            queued = max(1, round(lasting / row["seconds"]))
            rounds = [(ours(k, queued), rival()) for _ in range(repeats)]
            row["rivals"][name] = {
                "seconds": statistics.median(theirs for _, theirs in rounds),
                **spread([theirs / mine for mine, theirs in rounds]),
                "peak_bytes": rival.peak_bytes(),
            }
            yield row


def spread(ratios: list[float]) -> dict[str, float]:
    """Returns median, smallest and largest ratio."""
    return {"ratio": statistics.median(ratios), "ratio_min": min(ratios), "ratio_max": max(ratios)}


def measure_evaluation(config, repeats: int, lasting: float) -> dict:
    """Returns the figures of one batch of the evaluation."""
    config = experiment.filled(config)
    ours = OurEvaluation(config)
    queued = max(1, round(lasting / ours()))
    return {
        "batch_size": config.evaluation.batch_size,
        "seconds": statistics.median(ours(queued) for _ in range(repeats)),
        "floor_seconds": ours.floor(),
    }


HEADER = (
    "model           batch   k         ms  floor ms  images/s    TFLOP  TFLOP/s    use  GB peak   PyTorch: "
    "ms, ratio to ours (range), GB peak"
)


def line(row: dict, product: float) -> str:
    gigabytes = lambda size: "-" if size is None else f"{size / 1e9:.1f}"
    floor = "-" if row["floor_seconds"] is None else f"{1e3 * row['floor_seconds']:.1f}"
    text = (
        f"{row['model']:15} {row['batch_size']:5} {row['k']:3}  {1e3 * row['seconds']:9.1f}  {floor:>8}  "
        f"{row['images_per_second']:8.0f}  {row['tflop']:7.2f}  {row['tflop_per_second']:8.2f}  "
        f"{1e12 * row['tflop_per_second'] / product:5.0%}  {gigabytes(row['peak_bytes']):>5}"
    )
    for name, rival in row["rivals"].items():
        text += (
            f"   {name} {1e3 * rival['seconds']:.1f} ms, {rival['ratio']:.2f} "
            f"({rival['ratio_min']:.2f}-{rival['ratio_max']:.2f}), {gigabytes(rival['peak_bytes'])} GB"
        )
    return text


def heading(packages: tuple[str, ...]) -> dict:
    """Returns the command, device and versions of a measurement."""
    return {
        "command": "python -m "
        + " ".join([f"benchmarks.{pathlib.Path(sys.argv[0]).stem}", *sys.argv[1:]]),
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "versions": {package: importlib.metadata.version(package) for package in packages},
    }


def main():
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/cifar10_at_rwp.py")
    parser.add_argument("--batch_sizes", default="128,1024")
    parser.add_argument("--model", help="instead of the config's")
    parser.add_argument("--dtype", help="instead of the config's")
    parser.add_argument("--k", default="0,3,10", help="steps of weight ascent")
    parser.add_argument(
        "--rivals", default="float32,fast", help='float32, fast or both; "" for none'
    )
    parser.add_argument("--evaluation", action="store_true")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--seconds", type=float, default=2.0, help="minimum duration of a measurement"
    )
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
    content = heading(("jax", "jaxlib", *(["torch"] if rivals else [])))
    content |= {"product_tflop_per_second": product / 1e12, "rows": []}
    print(
        f"{content['device']} {content['versions']} a matrix product in {config.dtype}: "
        f"{product / 1e12:.2f} TFLOP/s"
    )
    print(HEADER)

    def keep() -> None:
        if args.json:
            write_json(args.json, content)

    for batch_size in map(int, args.batch_sizes.split(",")):
        for row in measure(config, batch_size, ks, rivals, args.repeats, args.seconds):
            row["utilisation"] = 1e12 * row["tflop_per_second"] / product
            if row not in content["rows"]:
                content["rows"].append(row)
            print(line(row, product), flush=True)
            keep()
    if args.evaluation:
        content["evaluation"] = measure_evaluation(config, args.repeats, args.seconds)
        figures = content["evaluation"]
        floor = figures["floor_seconds"]
        print(
            f"evaluation, batch {figures['batch_size']}: {1e3 * figures['seconds']:.1f} ms"
            + (f", floor {1e3 * floor:.1f} ms" if floor else "")
        )
        keep()


if __name__ == "__main__":
    main()
