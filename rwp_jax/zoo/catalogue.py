"""Lists the networks of the zoo, or adds a run's network to it.

    python -m rwp_jax.zoo
    python -m rwp_jax.zoo add --workdir RUN --name NAME --recipe COMMAND [--checkpoint last] [--seeds 0,1]

A run must have been evaluated under every attack first: `main.py --mode evaluate --workdir RUN`.
"""

import argparse
import json
import pathlib
import re
import sys

import jax

from rwp_jax.errors import InputError, Parser, as_flags, check_path
from rwp_jax.models.classifier import MODELS
from rwp_jax.models.precision import enable_x64_for
from rwp_jax.report.results import read_result
from rwp_jax.report.table import MISSING, Table, as_text
from rwp_jax.report.titles import setting
from rwp_jax.runs import layout, zoo
from rwp_jax.runs.layout import COLUMNS
from rwp_jax.runs.loaded import config_of, load_run
from rwp_jax.version import __version__


def show() -> None:
    """Prints one row per network."""
    rows = []
    for name in zoo.names():
        card = zoo.read_card(name)
        accuracies = [
            f"{100 * card.accuracy[column]['accuracy']:.2f}" if column in card.accuracy else MISSING
            for column in COLUMNS
        ]
        size = f"{card.file['bytes'] / 1e6:.1f} MB" if card.file["packaged"] else "card alone"
        rows.append([zoo.PREFIX + name, card.data, str(card.test_images), *accuracies, size])
    header = ["network", "data", "test images", *COLUMNS.values(), "file"]
    print(as_text(Table("", header, rows)))


def add(arguments: argparse.Namespace) -> None:
    """Writes the network of a run, with a card."""
    if not re.fullmatch(r"[a-z0-9_.-]+", arguments.name):
        raise InputError(
            f"--name={arguments.name} must consist of lower-case letters, digits and the characters _ . -"
        )
    directory, which = check_path("--workdir", arguments.workdir), arguments.checkpoint
    enable_x64_for(config_of(directory).dtype)
    run, result = load_run(directory, which), read_result(directory)
    if MODELS.origin(run.config.model.name):
        raise InputError(
            f"--workdir={directory}: a user-defined network cannot be added to the zoo"
        )
    columns = result.evaluations.get(which, {})
    missing = [name for name in COLUMNS if name not in columns]
    if missing:
        raise InputError(
            f"--workdir={directory}: {which} was not evaluated under {', '.join(missing)} on the whole "
            f"test set: run main.py --mode evaluate --workdir {directory} --checkpoint {which} first"
        )
    if result.figure(which, "epoch") not in (None, run.epoch):
        raise InputError(
            f"--workdir={directory}: the evaluated epoch is not that of checkpoint {which}"
        )
    try:
        seeds = [int(seed) for seed in arguments.seeds.split(",")]
    except ValueError:
        raise InputError(f"--seeds={arguments.seeds} must be comma-separated integers") from None
    params, batch_stats = jax.device_get((run.params, run.batch_stats))
    card = zoo.write(
        zoo.Card(
            name=arguments.name,
            recipe=arguments.recipe,
            config=json.loads(run.config.to_json()),
            data=setting([result]),
            epoch=run.epoch,
            checkpoint=which,
            seeds=seeds,
            test_images=result.test_examples,
            accuracy={
                name: {k: columns[name][k] for k in ("accuracy", "interval_95")} for name in COLUMNS
            },
            file={"packaged": not arguments.card_only},
            **_version(directory),
        ),
        {"params": params, "batch_stats": batch_stats},
    )
    print(f"{zoo.PREFIX}{card.name}: {card.file['bytes']:,} bytes, SHA-256 {card.file['sha256']}")


def _version(directory: pathlib.Path) -> dict[str, str]:
    """Returns `version` and `commit` of rwp-jax that trained a run, the installed version if unknown."""
    try:
        versions = json.loads((directory / layout.SUMMARY).read_text())["versions"]
        return {"version": versions["rwp-jax"], "commit": versions.get("commit") or ""}
    except (OSError, ValueError, KeyError):
        return {"version": __version__}


def main(argv: list[str]) -> int:
    """Returns the exit code."""
    sys.stdout.reconfigure(errors="replace")  # for terminals without ε and ∞
    parser = Parser(prog="python -m rwp_jax.zoo", description=__doc__.splitlines()[0])
    adding = parser.add_subparsers(dest="command").add_parser("add")
    for flag, what in (
        ("--workdir", "directory of the run"),
        ("--name", "name of the network in the zoo"),
        ("--recipe", "command that trains it"),
    ):
        adding.add_argument(flag, required=True, help=what)
    adding.add_argument("--checkpoint", default="last", help="checkpoint of the run")
    adding.add_argument("--seeds", default="0", help="seeds of the experiment that the run is from")
    adding.add_argument(
        "--card_only", action="store_true", help="write only the card, not the network"
    )
    arguments = parser.parse_args(argv)
    try:
        add(arguments) if arguments.command == "add" else show()
    except (InputError, OSError) as error:
        print(f"rwp_jax.zoo: {as_flags(error, vars(arguments))}", file=sys.stderr)
        return 2
    return 0
