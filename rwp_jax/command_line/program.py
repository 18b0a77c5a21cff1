"""The command line program: runs the selected mode; errors end it with one line and an exit code."""

import os
import pathlib
import sys
import warnings

import jax
from absl import app, logging
from absl import flags as absl_flags

from rwp_jax.command_line import flags
from rwp_jax.command_line.help import help_text
from rwp_jax.command_line.modes import MODES
from rwp_jax.command_line.parsing import check_flags, parse_flags
from rwp_jax.distributed import processes
from rwp_jax.distributed.preemption import EXIT_CODE, Interrupted, end_on_sigterm
from rwp_jax.errors import InputError, RunWarning, as_flags, first_line
from rwp_jax.training.divergence import NonFiniteLoss

_FORMAT = warnings.formatwarning
HELP = {"--help", "-help", "-h"}
USAGE = """\
Trains a classifier by adversarial training with weight perturbation.

    {name} --config configs/digits_at_rwp.py [--workdir DIR] [--config.KEY=VALUE ...]
    {name} --mode evaluate --workdir DIR [--attacks pgd20,autoattack] [--examples N] [--epsilon R,R]
    {name} --mode pseudo_label --workdir DIR [--unlabeled FILE] --output FILE
    {name} --mode import_torch --torch_checkpoint FILE --config FILE --workdir DIR
    {name} --mode export_torch --workdir DIR --output FILE
    {name} --mode reproduce --experiment fig2a --scale digits --workdir DIR [--list]
    {name} --mode report --workdirs DIR,DIR [--curves FILE]
    {name} --mode explain --workdir DIR [--workdirs DIR,DIR] [--checkpoint last] [--examples N]
    {name} --mode plan --config FILE --target h100 [--devices 8]

configs/default.py explains every key. An interrupted run continues when the same command is given
again. Exit codes: 0 finished; 1 the loss became non-finite; 2 bad input; 75 stopped by SIGTERM, or by
Ctrl-C during training, with everything saved (a second signal stops at once), or because another process
of the run ended; 130 stopped by Ctrl-C outside training.
"""


def use_compilation_cache() -> None:
    """Keeps compiled programs between runs, unless the user configured JAX's cache otherwise."""
    if not jax.config.jax_compilation_cache_dir:
        cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        jax.config.update("jax_compilation_cache_dir", os.path.join(cache, "rwp-jax", "xla"))


def _run(_: list[str]) -> None:
    check_flags(flags.MODE.value, MODES)
    logging.set_verbosity(logging.WARNING)
    MODES[flags.MODE.value].run()


def _one_line(message, category, *where, **line) -> str:
    """Formats the package's own warnings without the line of code that caused them."""
    own = issubclass(category, RunWarning)
    return f"warning: {message}\n" if own else _FORMAT(message, category, *where, **line)


def _name() -> str:
    """Returns the program's name: main.py, rwp-jax, or rwp_jax for `python -m rwp_jax`."""
    path = pathlib.Path(sys.argv[0])
    return path.parent.name if path.name == "__main__.py" else path.name


def main() -> None:
    """Runs the command line of sys.argv and exits."""
    use_compilation_cache()
    name = _name()
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
    code = 2
    try:
        app.run(_run, flags_parser=lambda argv: parse_flags(argv, MODES))
    except KeyboardInterrupt:
        code, why = 130, "interrupted; the same command continues"
    except (
        InputError,
        OSError,
    ) as error:  # OSError: for example a read-only directory or a full disk
        why = as_flags(error, absl_flags.FLAGS.flag_values_dict())
    except NonFiniteLoss as error:
        code, why = 1, error
    except Interrupted as error:
        code, why = EXIT_CODE, error
    except (jax.errors.JaxRuntimeError, ValueError) as error:  # which one depends on when it shows
        if not processes.lost_another(error):
            raise
        print(
            f"{name}: another process ended or cannot be reached ({first_line(error)}); the same command "
            "on all hosts continues from the newest checkpoint",
            file=sys.stderr,
            flush=True,
        )
        os._exit(EXIT_CODE)  # an orderly exit would wait for that process
    print(f"{name}: {why}", file=sys.stderr)
    sys.exit(code)
