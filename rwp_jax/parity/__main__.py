"""Compares this library with recorded numbers of the authors' PyTorch code, or of AutoAttack's.

python -m rwp_jax.parity --cases DIR [--only NAME,NAME] runs the cases of a directory in float64, prints
a table and exits with 1 if any fails, with 2 if the directory cannot be read.
"""

import argparse
import fnmatch
import pathlib
import sys

import jax
from tqdm import tqdm

from rwp_jax.errors import InputError
from rwp_jax.parity import autoattack
from rwp_jax.parity.case import read_case, read_settings
from rwp_jax.parity.cases import RUNNERS, kind_of
from rwp_jax.parity.compare import Row, compare, guarded, table

TOLERANCE = 1e-10


def run_case(directory: pathlib.Path, name: str, settings: dict) -> Row:
    """Runs one case of the authors' code."""

    def run():
        kind = kind_of(name)
        case = read_case(directory, name, settings)
        return compare(name, RUNNERS[kind](case), case.recorded, TOLERANCE)

    return guarded(name, TOLERANCE, run)


def select(names, patterns: str) -> list[str]:
    """The names that match any of the comma-separated shell patterns; InputError if none does."""
    chosen = [n for n in names if any(fnmatch.fnmatch(n, p) for p in patterns.split(","))]
    if not chosen:
        there = ", ".join(names) or "none"
        raise InputError(f"--only={patterns}: no case of that name; there are {there}")
    return chosen


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(prog="python -m rwp_jax.parity", description=__doc__)
    parser.add_argument("--cases", type=pathlib.Path, required=True, help="directory of cases.json")
    parser.add_argument("--only", default="*", help="names or patterns of cases, comma-separated")
    args = parser.parse_args(argv)
    jax.config.update("jax_enable_x64", True)
    try:
        if autoattack.is_autoattack(args.cases):
            names = select(autoattack.attack_names(args.cases), args.only)
            results = autoattack.rows(args.cases, names)
        else:
            settings = read_settings(args.cases)
            names = select(list(settings), args.only)
            results = (run_case(args.cases, name, settings[name]) for name in names)
        rows = list(tqdm(results, total=len(names), disable=not sys.stderr.isatty()))
    except InputError as error:
        print(f"rwp_jax.parity: {error}", file=sys.stderr)
        return 2
    print(table(rows))
    failed = sum(row.failed for row in rows)
    print(f"{len(rows)} cases, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
