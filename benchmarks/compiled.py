"""Counts what a run's programs do on an absent GPU or TPU: kernels, bytes, operations, memory.

    python -m benchmarks.compiled --config configs/cifar10_at_rwp.py [--target h100|h200|a100|v5e:2x2|...]
        [--devices 8] [--batch_size 128] [--dtype bfloat16] [--model wrn-34-10]
        [--remat] [--program train|evaluate|autoattack] [--json FILE] [--hlo FILE]

The trainer's own program is compiled by the compiler of that hardware, which JAX can use without the
hardware (`pip install ".[compile-gpu]"` or `".[compile-tpu]"`, in a separate environment), and counted from
its text; see rwp_jax/hardware/counts.py. Nothing runs. A floor is the sum over kernels of the larger of
bytes over bandwidth and operations over the rate of matrix products; real kernels are slower. Bytes and
operations are per device and per iteration of each loop. --hlo saves the program's text; for AutoAttack,
one file per attack, with the attack's name before the suffix.
"""

import argparse
import json
import pathlib
import re
import sys

import jax

from rwp_jax.errors import InputError, as_flags, exit_without_extra

exit_without_extra("benchmarks.compiled")

from rwp_jax.command_line.config_file import load_config  # noqa: E402  (needs the extra)
from rwp_jax.distributed.preemption import ending_at_once  # noqa: E402
from rwp_jax.hardware import report  # noqa: E402
from rwp_jax.hardware.cost import PUBLISHED_EXTRA  # noqa: E402
from rwp_jax.hardware.programs import (  # noqa: E402
    PROGRAMS,
    DoesNotFit,
    check_program,
    compile_programs,
)
from rwp_jax.hardware.topology import ACCEPTED, find_hardware, only_compile  # noqa: E402

# Flags that set config keys: error messages name the keys, users know the flags.
KEYS = {
    "config.model.name": "model",
    "config.dtype": "dtype",
    "config.remat": "remat",
    "config.batch_size": "batch_size",
    "config.evaluation.batch_size": "batch_size",
}


class OneLine(argparse.ArgumentParser):
    """Prints errors without the usage, which --help prints."""

    def error(self, message):
        message = re.sub(
            r"argument (\S+): invalid int value: '(.*)'", r"\1=\2 must be an integer", message
        )
        self.exit(2, f"{self.prog}: {message}\n")


def main():
    parser = OneLine("benchmarks.compiled", description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True)
    parser.add_argument("--target", default="h100", help=ACCEPTED)
    parser.add_argument("--devices", type=int, help="default: one GPU, or all of a slice")
    parser.add_argument("--batch_size", type=int, help="global, instead of the config's")
    parser.add_argument("--dtype", help="instead of the config's")
    parser.add_argument("--model", help="instead of the config's")
    on = {"action": "store_true", "default": None}
    parser.add_argument("--remat", **on, help="set config.remat: recompute residual blocks")
    parser.add_argument("--program", default="train", help=", ".join(PROGRAMS))
    parser.add_argument("--json", help="also write the figures here")
    parser.add_argument("--hlo", help="save the compiled text here")
    args = parser.parse_args()
    try:
        with ending_at_once():
            run(args)
    except InputError as error:
        message = as_flags(error, vars(args))
        for key, flag in KEYS.items():
            if getattr(args, flag) is not None:
                message = message.replace(f"{key}=", f"--{flag}=")
        print(f"benchmarks.compiled: {message}", file=sys.stderr)
        sys.exit(2)


def writable(flag: str, name: str) -> pathlib.Path:
    """Returns the path of a file; raises InputError unless it is writable. Keeps its content."""
    if not name:
        raise InputError(f"{flag}= must name a file")
    try:
        path = pathlib.Path(name).resolve()  # of a dangling link, its target
    except (OSError, RuntimeError):
        raise InputError(f"{flag}={name} cannot be written: its links form a loop") from None
    there = path.exists()
    if path.is_fifo():  # opening it would wait for a reader
        raise InputError(f"{flag}={name} is a pipe, must be a file")
    try:
        path.open("a").close()
    except OSError as error:
        raise InputError(f"{flag}={name} cannot be written: {error.strerror}") from None
    if not there:
        path.unlink()
    return path


def write(flag: str, path: pathlib.Path, text: str) -> None:
    """Writes the file; raises InputError if that fails, as on a full disk."""
    try:
        path.write_text(text)
    except OSError as error:
        raise InputError(f"{flag}={path} cannot be written: {error.strerror}") from None


def run(args) -> None:
    only_compile()
    json_file, hlo_file = (
        None if name is None else writable(flag, name)
        for flag, name in (("json", args.json), ("hlo", args.hlo))
    )
    if json_file and json_file == hlo_file:
        raise InputError(f"hlo={args.hlo} is also the file of json=, must be another")
    config = load_config(args.config)
    if args.model is not None:
        config.model.name = args.model
    if args.dtype is not None:
        config.dtype = args.dtype
    if args.remat:
        config.remat = True
    if config.dtype == "float64":
        jax.config.update("jax_enable_x64", True)
    if args.batch_size is not None:
        config.batch_size = config.evaluation.batch_size = args.batch_size
    if config.objective.name == "rst" and not (
        config.extra_data.path or config.data.labeled_examples
    ):
        config.extra_data.path = "ti_500K_pseudo_labeled.pickle"
        print(f"no extra_data.path: counted as {PUBLISHED_EXTRA:,} images")
    hardware = find_hardware(args.target, args.devices)
    check_program(config, hardware, args.program, args.batch_size)
    print(f"compiling for {hardware.devices} x {hardware.chip.name}", file=sys.stderr, flush=True)
    programs = []
    try:
        for program in compile_programs(config, hardware, args.program, args.batch_size):
            print(report.describe(program, hardware), flush=True)
            programs.append(program)
            if hlo_file:
                several = args.program == "autoattack"
                name = (
                    f"{hlo_file.stem}.{program.name}{hlo_file.suffix}" if several else hlo_file.name
                )
                write("hlo", hlo_file.with_name(name), program.text)
    except DoesNotFit as error:
        size = f"a batch of {config.batch_size}" if args.program == "train" else "its batch"
        or_remat = "" if args.program != "train" or config.remat else ", or --remat"
        hint = "main.py --mode plan finds the largest that fits"
        message = f"{error}, with {size}; take another --batch_size ({hint}){or_remat}"
        raise InputError(message) from None
    if json_file:
        figures = report.figures(programs, hardware)
        figures["command"] = "python -m benchmarks.compiled " + " ".join(sys.argv[1:])
        write("json", json_file, json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
