"""The command line program: runs the selected mode; errors end it with one line and an exit code."""

import os
import sys
import traceback
import warnings
from typing import NoReturn

import jax
from absl import app, logging
from absl import flags as absl_flags

from rwp_jax.command_line import flags
from rwp_jax.command_line.arguments import program_name
from rwp_jax.command_line.help import help_text
from rwp_jax.command_line.modes import MODES
from rwp_jax.command_line.parsing import check_flags, parse_flags
from rwp_jax.distributed import failures
from rwp_jax.distributed.preemption import EXIT_CODE, Interrupted, end_on_sigterm
from rwp_jax.errors import InputError, RunWarning, as_flags, first_line, is_temporary
from rwp_jax.inspection.findings import Unsound
from rwp_jax.training.divergence import NonFiniteLoss
from rwp_jax.version import commit

_FORMAT = warnings.formatwarning
HELP = {"--help", "-help", "-h"}
USAGE = """\
Trains a classifier by adversarial training with weight perturbation.

    {name} --config configs/digits_at_rwp.py [--workdir DIR] [--config.KEY=VALUE ...]
    {name} --config FILE --workdir DIR --extend --config.epochs=N [--config.KEY=VALUE ...]
    {name} --config FILE --workdir DIR --init_from RUN [--checkpoint best]
    {name} --mode evaluate --workdir DIR [--attacks pgd20,autoattack] [--examples N] [--epsilon R,R]
    {name} --mode pseudo_label --workdir DIR [--unlabeled FILE] --output FILE
    {name} --mode write_data PATH --output DIR
    {name} --mode import --path FILE --config FILE --workdir DIR [--name_map FILE]
    {name} --mode export_torch --workdir DIR --output FILE
    {name} --mode inspect PATH [--config FILE]
    {name} --mode reproduce --experiment fig2a --scale digits --workdir DIR [--list]
    {name} --mode report --workdirs DIR,DIR [--curves FILE]
    {name} --mode explain --workdir DIR [--workdirs DIR,DIR] [--checkpoint last] [--examples N]
    {name} --mode plan --config FILE --target h100 [--devices 8]

configs/default.py explains every key. An interrupted run continues when the same command is given
again. Exit codes: 0 finished; 1 the loss became non-finite, or what was inspected is unsound; 2 bad
input; 75 to be started again: stopped by SIGTERM, or by Ctrl-C during training, with everything saved (a
second signal stops at once), another process of the run ended, or a disk is full; 130 stopped by Ctrl-C
outside training.
"""


def use_compilation_cache() -> None:
    """Keeps compiled programs between runs, unless the user configured JAX's cache otherwise."""
    if not jax.config.jax_compilation_cache_dir:
        cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        jax.config.update("jax_compilation_cache_dir", os.path.join(cache, "rwp-jax", "xla"))


def _run(_: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)
    check_flags(flags.MODE.value, MODES)
    commit()
    MODES[flags.MODE.value].run()


def _one_line(message, category, *where, **line) -> str:
    """Formats the package's own warnings without the line of code that caused them."""
    own = issubclass(category, RunWarning)
    return f"warning: {message}\n" if own else _FORMAT(message, category, *where, **line)


def _known(error: Exception) -> tuple[int, str] | None:
    """Returns the exit code and the line of an error that needs no traceback; None for others."""
    if isinstance(error, NonFiniteLoss | Unsound):
        return 1, str(error)
    if isinstance(error, InputError | OSError):  # OSError: for example a read-only directory
        line = as_flags(error, absl_flags.FLAGS.flag_values_dict())
        return EXIT_CODE if is_temporary(error) else 2, line
    return None


def _end_all(name: str, error: Exception, known: tuple[int, str] | None) -> NoReturn:
    """Ends this process because of an error and makes the others end."""
    if known:
        code, line = failures.fail(*known)
    else:
        # JAX raises either of the two if another process is gone, depending on when it shows.
        unsure = isinstance(error, jax.errors.JaxRuntimeError | ValueError)
        code, line = failures.fail(None if unsure else failures.FAILED, first_line(error))
    if code == failures.FAILED and not known:
        traceback.print_exc()
    if code == EXIT_CODE:
        line += "; the same command on all hosts continues from the newest checkpoint"
    failures.leave(code, f"{name}: {line}")


def main() -> None:
    """Runs the command line of sys.argv and exits."""
    use_compilation_cache()
    name = program_name()
    if HELP & set(sys.argv[1:]):
        try:
            print(help_text(USAGE.format(name=name), sys.argv[1:], MODES), flush=True)
        except InputError as error:
            print(f"{name}: {error}", file=sys.stderr)
            sys.exit(2)
        except BrokenPipeError:  # as from `| head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    end_on_sigterm(f"{name}: ended by SIGTERM")
    warnings.formatwarning = _one_line
    sys.stdout.reconfigure(errors="replace")  # terminals may lack ± and ∞
    try:
        app.run(_run, flags_parser=lambda argv: parse_flags(argv, MODES))
        return
    except Interrupted as error:  # in all processes
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(EXIT_CODE)
    except KeyboardInterrupt:
        print(f"{name}: interrupted; the same command continues", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        known = _known(error)
        # Counting looks for devices, and plugins that find no driver report it; so not unless connected.
        if jax.distributed.is_initialized() and jax.process_count() > 1:
            _end_all(name, error, known)
        if known is None:
            raise
        code, line = known
        print(f"{name}: {line}", file=sys.stderr)
        sys.exit(code)
