"""Reads the weights that --init_from names."""

from rwp_jax.command_line import flags
from rwp_jax.distributed import processes
from rwp_jax.errors import InputError
from rwp_jax.pytorch.initial import initial_weights
from rwp_jax.runs.initial_weights import InitialWeights


def given_weights() -> InitialWeights | None:
    """Reads the weights that training begins with; None without --init_from, and in all other processes.

    Raises:
      InputError: in every process, if the first cannot read them.
    """
    source, found = flags.INIT_FROM.value, None
    for flag in (flags.CHECKPOINT, flags.TORCH_KEY):
        if flag.value and not source:
            raise InputError(f"{flag.name}={flag.value} needs init_from= in --mode=train")

    def read() -> None:
        nonlocal found
        if not source:
            return
        config, checkpoint, key = (
            f.value for f in (flags.CONFIG, flags.CHECKPOINT, flags.TORCH_KEY)
        )
        found = initial_weights(config, source, checkpoint, key)

    processes.by_first(read)
    return found
