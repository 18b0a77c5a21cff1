"""Trains one of several concurrent runs, see `jobs`. Reads a pickled config and directory from stdin.

python -m rwp_jax.reproduce.job CORES
"""

import os
import pickle
import signal
import sys
import threading

# Exit codes in addition to preemption.EXIT_CODE. Python itself uses 1 and 2 for failures.
FINISHED, DIVERGED, BAD_INPUT, IN_USE = 0, 10, 11, 12


def _end_with_parent() -> None:
    """Sends this process SIGTERM, so that it saves and stops, when its parent's end of the pipe closes."""
    os.read(sys.stdin.fileno(), 1)  # sys.stdin.read would hold a lock that Python needs at exit
    os.kill(os.getpid(), signal.SIGTERM)


def main(cores: set[int]) -> int:
    """Trains on the given cores; returns the exit code."""
    os.sched_setaffinity(0, cores)  # before JAX counts them
    from rwp_jax.distributed.preemption import EXIT_CODE, Interrupted, end_on_sigterm
    from rwp_jax.errors import InputError
    from rwp_jax.models.precision import enable_x64_for
    from rwp_jax.runs import layout
    from rwp_jax.training import self_training
    from rwp_jax.training.divergence import NonFiniteLoss

    end_on_sigterm("ended by SIGTERM")
    config, directory = pickle.load(sys.stdin.buffer)
    enable_x64_for(config.dtype)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        self_training.train(config, directory)
    except NonFiniteLoss as error:
        print(error)
        return DIVERGED
    except layout.InUse as error:
        print(error)
        return IN_USE
    except (InputError, OSError) as error:
        print(error)
        return BAD_INPUT
    except Interrupted as error:
        print(error)
        return EXIT_CODE
    return FINISHED


if __name__ == "__main__":
    sys.exit(main({int(core) for core in sys.argv[1].split(",")}))
