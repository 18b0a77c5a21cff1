"""Kills a training run repeatedly and damages its checkpoints; what is restored must be exact.

    python -m benchmarks.faults [--kills 50] [--damages 200] [--workdir DIR]

Kills: one run of digits AT-RWP is left undisturbed. Identical runs are killed (SIGKILL or SIGTERM, at
random moments, every other time while a checkpoint is being written) and continued by the same command
until they end. Weights, momentum and running statistics must be bitwise equal, and so must metrics.jsonl.

Damages: a file of a copied run's checkpoints is truncated, has one bit flipped, or is removed. The restored
state must equal the one saved after the reported step, or the checkpoint must be refused.
"""

import contextlib
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np
from tqdm import tqdm

from rwp_jax.distributed.preemption import EXIT_CODE
from rwp_jax.errors import InputError, Parser
from rwp_jax.runs.checkpoint import DIRECTORY, Checkpoints
from rwp_jax.runs.layout import SUMMARY
from rwp_jax.runs.metrics import FILE

ROOT = pathlib.Path(__file__).parents[1]
CONFIG = (
    "--config=configs/digits_at_rwp.py:full",
    "--config.epochs=4",
    "--config.checkpoint_steps=3",
    "--config.attack.steps=3",
    "--config.evaluation.steps=3",
    "--config.data.validation_examples=144",
)
LONGEST = 20.0  # seconds between two kills


def start(directory: pathlib.Path) -> subprocess.Popen:
    command = [sys.executable, "main.py", *CONFIG, f"--workdir={directory}"]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def being_saved(directory: pathlib.Path) -> bool:
    """Whether there is a checkpoint without its record, which is written last."""
    entries = list((directory / DIRECTORY).glob("*")) if (directory / DIRECTORY).exists() else []
    return any(p.is_dir() and not p.with_name(f"{p.name}.json").exists() for p in entries)


def kill_at_random(run: subprocess.Popen, directory: pathlib.Path, rng, inside_save: bool) -> bool:
    """Sends a signal at a random moment; returns False if the run ended before."""
    deadline = time.monotonic() + rng.uniform(1, LONGEST)
    while run.poll() is None:
        if time.monotonic() > deadline and (not inside_save or being_saved(directory)):
            run.send_signal(rng.choice((signal.SIGKILL, signal.SIGTERM)))
            code, errors = run.wait(), run.stderr.read()
            # While modules are imported, before main.py begins, a signal ends the process directly.
            if code not in (-signal.SIGKILL, -signal.SIGTERM, EXIT_CODE, 0):
                raise SystemExit(f"exit code {code} after a signal: {errors}")
            return True
        time.sleep(0.002)
    if run.wait():
        raise SystemExit(f"exit code {run.returncode} without a signal: {run.stderr.read()}")
    return False


def final(directory: pathlib.Path) -> tuple[list[np.ndarray], str]:
    """Returns the arrays of the last checkpoint and the text of metrics.jsonl."""
    checkpoints = Checkpoints(directory)
    state = checkpoints.load(checkpoints.find("last"))
    return jax.tree.leaves(state), (directory / FILE).read_text()


def same(a, b) -> bool:
    (arrays, metrics), (others, other_metrics) = a, b
    return metrics == other_metrics and all(map(np.array_equal, arrays, others))


def kills(count: int, directory: pathlib.Path, rng: random.Random) -> int:
    """Runs until `count` kills are done; returns the number of kills in runs with a different result."""
    undisturbed = directory / "undisturbed"
    run = start(undisturbed)
    if run.wait():
        raise SystemExit(run.stderr.read())
    expected = final(undisturbed)
    done = wrong = number = 0
    with tqdm(total=count, desc="kills", disable=not sys.stderr.isatty()) as bar:
        while done < count:
            disturbed, here = directory / f"disturbed{number}", 0
            number += 1
            while not (disturbed / SUMMARY).exists():
                run = start(disturbed)
                if done + here < count and kill_at_random(run, disturbed, rng, here % 2 == 1):
                    here += 1
                    bar.update()
                elif run.wait():
                    raise SystemExit(run.stderr.read())
            equal = same(final(disturbed), expected)
            print(f"run {number}: {here} kills, {'equal' if equal else 'DIFFERENT'}", flush=True)
            wrong += 0 if equal else here
            done += here
            shutil.rmtree(disturbed)
    return wrong


def damage(path: pathlib.Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    kind = rng.choice(("cut", "bit", "gone"))
    if kind == "gone" or not data:
        path.unlink()
    elif kind == "cut":
        path.write_bytes(data[: rng.randrange(len(data))])
    else:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)


def damages(count: int, run: pathlib.Path, directory: pathlib.Path, rng: random.Random) -> dict:
    """Counts the outcomes of `count` damages to the checkpoints of a run."""
    checkpoints = Checkpoints(run)
    saved = {}
    for path in (run / DIRECTORY).glob("*.json"):
        copy = directory / "one"
        shutil.rmtree(copy, ignore_errors=True)
        (copy / DIRECTORY).mkdir(parents=True)
        shutil.copytree(path.with_suffix(""), copy / DIRECTORY / path.stem)
        shutil.copy(path, copy / DIRECTORY)
        alone = Checkpoints(copy)
        saved[int(path.stem)] = alone.load(alone.newest())
    newest = checkpoints.newest()["step"]
    outcomes = dict.fromkeys(("newest restored", "older one used", "refused", "SILENTLY WRONG"), 0)
    for _ in tqdm(range(count), "damages", disable=not sys.stderr.isatty()):
        copy = directory / "damaged"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(run / DIRECTORY, copy / DIRECTORY)
        files = sorted(p for p in (copy / DIRECTORY).rglob("*") if p.is_file())
        # In half of the cases, a file of the newest checkpoint; otherwise of any.
        of_newest = [p for p in files if str(newest) in p.relative_to(copy / DIRECTORY).parts[0]]
        damage(rng.choice(rng.choice((files, of_newest))), rng)
        try:
            with contextlib.redirect_stdout(None):
                state, record = Checkpoints(copy).restore_newest(saved[newest])
        except InputError:
            outcomes["refused"] += 1
            continue
        pairs = zip(jax.tree.leaves(state), jax.tree.leaves(saved[record["step"]]), strict=True)
        if not all(np.array_equal(a, b) for a, b in pairs):
            outcomes["SILENTLY WRONG"] += 1
        else:
            outcomes["newest restored" if record["step"] == newest else "older one used"] += 1
    return outcomes


def main() -> int:
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--damages", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="seed of moments, signals and damages")
    parser.add_argument(
        "--workdir", type=pathlib.Path, help="directory to keep; default: a temporary one"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        directory = args.workdir or pathlib.Path(temporary)
        wrong = kills(args.kills, directory, random.Random(args.seed))
        print(f"{args.kills - wrong} of {args.kills} kills left no trace")
        outcomes = damages(
            args.damages, directory / "undisturbed", directory, random.Random(args.seed)
        )
        print(f"{args.damages} damages:", ", ".join(f"{n} {what}" for what, n in outcomes.items()))
    return 1 if wrong or outcomes["SILENTLY WRONG"] else 0


if __name__ == "__main__":
    sys.exit(main())
