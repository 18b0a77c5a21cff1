"""Measures how fast extra images on disk reach a step that does nothing, and the memory that this takes.

    python -m benchmarks.streaming --directory DIR [--images 5000000] [--batch_size 1024] [--seconds 60]

DIR receives a set of made-up images of 32x32x3, 15 GB for 5 million, unless it holds one. Batches
are drawn, read and placed on the devices as in training, from a pool in which 50,000 labelled
images are in memory and all others are on disk; the step only looks at one pixel. Prints JSON:
images per second of wall time and of the process's CPU time, the share of the time in which the
step waited, and the largest resident memory that no file backs (RssAnon).
"""

import contextlib
import json
import os
import pathlib
import re
import time

import jax
import jax.numpy as jnp
import numpy as np

from rwp_jax.configs import cifar10_at_rwp
from rwp_jax.data import stored, stream
from rwp_jax.data.order import epoch_indices
from rwp_jax.data.parts import AT_ONCE, Part
from rwp_jax.data.sources import Dataset
from rwp_jax.data.writing import write_parts
from rwp_jax.distributed import devices
from rwp_jax.errors import Parser
from rwp_jax.training import training_data

SHAPE, CLASSES, LABELLED = (32, 32, 3), 10, 50_000


def _blocks(count: int):
    """Yields images that all differ: noise with the number of the image in its first pixels."""
    noise = np.random.default_rng(0).integers(0, 256, (AT_ONCE, *SHAPE), dtype=np.uint8)
    numbers = noise.reshape(AT_ONCE, -1)[:, :8].view(np.uint64)
    for begin in range(0, count, AT_ONCE):
        numbers[:, 0] = np.arange(begin, begin + AT_ONCE)
        yield noise[: min(AT_ONCE, count - begin)]


def _resident() -> int:
    """Returns this process's resident anonymous memory in bytes."""
    status = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"RssAnon:\s+(\d+)", status)[1])


def _from_disk() -> int:
    """Returns how many bytes this process has caused to be read from a disk."""
    return int(re.search(r"\nread_bytes: (\d+)", pathlib.Path("/proc/self/io").read_text())[1])


def main():
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--directory", type=pathlib.Path, required=True)
    parser.add_argument("--images", type=int, default=5_000_000)
    parser.add_argument("--batch_size", type=int, default=1024)
    parser.add_argument("--seconds", type=float, default=60)
    args = parser.parse_args()
    if not args.directory.exists():
        labels = (np.arange(args.images) % CLASSES).astype(np.int32)
        shape = (args.images, *SHAPE)
        part = Part("noise", shape, labels, lambda: _blocks(args.images))
        write_parts([part], args.directory)
    begin = time.perf_counter()
    images, labels = stored.open_set(args.directory)
    opened = time.perf_counter() - begin
    x, y = np.zeros((LABELLED, *SHAPE), np.uint8), (np.arange(LABELLED) % CLASSES).astype(np.int32)
    data = Dataset(x, y, x[:1], y[:1], CLASSES, images, labels)
    config = cifar10_at_rwp.get_config()
    config.batch_size, config.extra_data.unlabeled_fraction = args.batch_size, -1.0
    mixture = training_data.mixture_of(config, data)
    step = devices.data_parallel(lambda images: images.ravel()[0], (True,), "pmap")
    read = training_data.batch_reader(config, data)
    size = args.batch_size * int(np.prod(SHAPE))
    stream.warm(images.path)
    order = epoch_indices(mixture, 0, 0)
    largest, waited, count, first = 0, 0.0, 0, None
    with contextlib.closing(
        stream.read_ahead(order, mixture.steps, read, step.place, size)
    ) as batches:
        while True:
            asked = time.perf_counter()
            batch = next(batches, None)
            waited += time.perf_counter() - asked
            if batch is None:
                break
            jnp.asarray(step(batch.images)).block_until_ready()
            if first is None:  # compiled, and the threads are running
                first, cpu, waited = time.perf_counter(), time.process_time(), 0.0
                disk = _from_disk()
                continue
            count += args.batch_size
            if count // args.batch_size % 50 == 0:
                largest = max(largest, _resident())
            if time.perf_counter() - first > args.seconds:
                break
        seconds, cpu = time.perf_counter() - first, time.process_time() - cpu
    figures = {
        "images_on_disk": len(images),
        "batch_size": args.batch_size,
        "seconds_to_open": round(opened, 2),
        "images_per_second": round(count / seconds),
        "images_per_cpu_second": round(count / cpu),
        "mb_per_second_from_disk": round((_from_disk() - disk) / seconds / 1e6),
        "waiting_share": round(waited / seconds, 3),
        "rss_anon_gb": round(max(largest, _resident()) / 1e9, 3),
        "cores": len(os.sched_getaffinity(0)),
        "device": jax.devices()[0].device_kind,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
