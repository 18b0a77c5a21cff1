"""One run of several that go on at a time, see `jobs`: a pickled config and directory on standard input.

python -m rwp_jax.reproduce.job CORES
"""

import os
import pickle
import sys

FINISHED, DIVERGED, BAD_INPUT, IN_USE = 0, 1, 2, 3  # and preemption.EXIT_CODE: exit codes


def main(cores: set[int]) -> int:
    """Trains on these cores; returns the exit code."""
    os.sched_setaffinity(0, cores)  # before JAX counts them
    from rwp_jax import self_training, workdir
    from rwp_jax.errors import InputError
    from rwp_jax.finite import NonFiniteLoss
    from rwp_jax.preemption import EXIT_CODE, Interrupted, end_on_sigterm

    end_on_sigterm("ended by SIGTERM")
    config, directory = pickle.load(sys.stdin.buffer)
    try:
        self_training.train(config, directory)
    except NonFiniteLoss as error:
        print(error)
        return DIVERGED
    except workdir.InUse as error:
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
