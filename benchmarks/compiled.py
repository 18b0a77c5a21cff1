"""What the programs of a run do on a GPU or TPU that is not there: kernels, bytes, operations, memory.

    python -m benchmarks.compiled --config configs/cifar10_at_rwp.py [--target h100|h200|a100|v5e:2x2|...]
        [--devices 8] [--batch_size 128] [--dtype bfloat16] [--model wrn-34-10]
        [--program train|evaluate|autoattack] [--json FILE] [--hlo FILE]

The trainer's own program is compiled by the compiler of that hardware, which JAX has without the hardware
(`pip install ".[compile-gpu]"` or `".[compile-tpu]"`, in an environment of its own), and counted from its
text; see rwp_jax/hardware/counts.py. Nothing runs. A floor is the sum over kernels of the larger of bytes
over bandwidth and operations over the rate of matrix products; real kernels are slower. Bytes and
operations are of one device and one iteration of each loop. --hlo keeps the text, to count again; of
AutoAttack, a file an attack, with its name before the suffix.
"""

import argparse
import json
import pathlib
import sys

import jax

from rwp_jax.command_line.config_file import load_config
from rwp_jax.errors import InputError, as_flags
from rwp_jax.hardware import report
from rwp_jax.hardware.cost import PUBLISHED_EXTRA
from rwp_jax.hardware.programs import PROGRAMS, compile_programs
from rwp_jax.hardware.topology import ACCEPTED, find_hardware, only_compile


def main():
    parser = argparse.ArgumentParser(
        "python -m benchmarks.compiled", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--config", required=True)
    parser.add_argument("--target", default="h100", help=ACCEPTED)
    parser.add_argument("--devices", type=int, help="default one GPU, or all of a slice")
    parser.add_argument("--batch_size", type=int, help="global, instead of the config's")
    parser.add_argument("--dtype", help="instead of the config's")
    parser.add_argument("--model", help="instead of the config's")
    parser.add_argument("--program", default="train", help=", ".join(PROGRAMS))
    parser.add_argument("--json", type=pathlib.Path, help="also write the figures here")
    parser.add_argument("--hlo", type=pathlib.Path, help="keep the compiled text here")
    args = parser.parse_args()
    try:
        run(args)
    except InputError as error:
        print(f"benchmarks.compiled: {as_flags(error, vars(args))}", file=sys.stderr)
        sys.exit(2)


def check_writable(flag: str, path: pathlib.Path) -> None:
    """Raises InputError unless the file can be written; leaves what is in it."""
    there = path.exists()
    try:
        path.open("a").close()
    except OSError as error:
        raise InputError(f"{flag}={path} cannot be written: {error.strerror}") from None
    if not there:
        path.unlink()


def run(args) -> None:
    only_compile()
    for flag, path in (("--json", args.json), ("--hlo", args.hlo)):
        if path:
            check_writable(flag, path)
    config = load_config(args.config)
    config.model.name = args.model or config.model.name
    config.dtype = args.dtype or config.dtype
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
    programs = []
    print(f"compiling for {hardware.devices} x {hardware.chip.name}", file=sys.stderr, flush=True)
    for program in compile_programs(config, hardware, args.program, args.batch_size):
        print(report.describe(program, hardware), flush=True)
        programs.append(program)
        if args.hlo:
            several = args.program == "autoattack"
            file = (
                args.hlo.with_suffix(f".{program.name}{args.hlo.suffix}") if several else args.hlo
            )
            file.write_text(program.text)
    if args.json:
        figures = report.figures(programs, hardware)
        figures["command"] = "python -m benchmarks.compiled " + " ".join(sys.argv[1:])
        args.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
