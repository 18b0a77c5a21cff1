"""Compares this library with the authors' PyTorch code: with recorded numbers, or live.

python -m rwp_jax.parity --cases DIR runs the recorded cases of a directory (of the authors' code or of
AutoAttack) in float64; --reference CHECKOUT runs the code of a clone of the authors' repository and ours
side by side. Both print a table and exit with 0, with 1 if anything fails, or with 2 for bad input.
"""

import pathlib
import sys

import jax
from tqdm import tqdm

from rwp_jax.errors import InputError, Parser, as_flags
from rwp_jax.names import matches
from rwp_jax.parity import autoattack
from rwp_jax.parity.agreement import Row, compare, guarded, table
from rwp_jax.parity.case import read_case, read_settings
from rwp_jax.parity.cases import RUNNERS, kind_of

TOLERANCE = 1e-10


def run_case(directory: pathlib.Path, name: str, settings: dict) -> Row:
    """Runs one case of the authors' code."""

    def run():
        kind = kind_of(name)
        case = read_case(directory, name, settings)
        return compare(name, RUNNERS[kind](case), case.recorded, TOLERANCE)

    return guarded(name, TOLERANCE, run)


def select(names, patterns: str) -> list[str]:
    """Returns the names that match any of the comma-separated shell patterns; InputError if none does."""
    chosen = [name for name in names if matches(name, patterns)]
    if not chosen:
        there = ", ".join(names) or "none"
        raise InputError(f"--only={patterns}: no case of that name; available: {there}")
    return chosen


def run_cases(directory: pathlib.Path, only: str) -> int:
    """Prints a table of a directory's cases; returns how many failed. Raises InputError for bad input."""
    if autoattack.is_autoattack(directory):
        names = select(autoattack.attack_names(directory), only)
        results = autoattack.rows(directory, names)
    else:
        settings = read_settings(directory)
        names = select(list(settings), only)
        results = (run_case(directory, name, settings[name]) for name in names)
    rows = list(tqdm(results, total=len(names), disable=not sys.stderr.isatty()))
    failed = sum(row.failed for row in rows)
    print(table(rows))
    print(f"{len(rows)} cases, {failed} failed")
    return failed


def run_live(args) -> int:
    """Compares with a checkout; returns how many settings failed. Raises InputError for bad input."""
    from rwp_jax.parity.live import reference  # the only part that needs PyTorch

    chosen = lambda names: select(names, args.only)
    device = args.device or "cpu"
    return reference.run(args.reference, device, args.steps, args.output, chosen, TOLERANCE)


def main(argv=None) -> int:
    parser = Parser(prog="python -m rwp_jax.parity", description=__doc__)
    parser.add_argument("--cases", type=pathlib.Path, help="directory with cases.json or clean.npz")
    parser.add_argument("--reference", type=pathlib.Path, help="clone of the authors' repository")
    parser.add_argument("--only", default="*", help="names or patterns, comma-separated")
    live = parser.add_argument_group("with --reference")
    live.add_argument(
        "--device", choices=("cpu", "cuda"), help="device of the authors' code (default: cpu)"
    )
    live.add_argument(
        "--steps", type=int, help="training steps (default: 3; 1 for PreActResNet-18)"
    )
    live.add_argument(
        "--output", type=pathlib.Path, help="also write the tables to this .md or .html file"
    )
    args = parser.parse_args(argv)
    jax.config.update("jax_enable_x64", True)
    try:
        if (args.cases is None) == (args.reference is None):
            raise InputError("give one of --cases DIR and --reference CHECKOUT")
        for flag in ("device", "steps", "output"):
            if args.cases and getattr(args, flag) is not None:
                raise InputError(f"--{flag} goes with --reference, not with --cases")
        failed = run_cases(args.cases, args.only) if args.cases else run_live(args)
    except InputError as error:
        print(f"rwp_jax.parity: {as_flags(error, vars(args))}", file=sys.stderr)
        return 2
    return 1 if failed else 0
