"""Implements the modes for checkpoints and files of any kind: import, import_torch and inspect."""

import contextlib
import re
from collections.abc import Iterator

from rwp_jax.command_line import flags
from rwp_jax.command_line.arguments import path_of, program_name
from rwp_jax.errors import InputError
from rwp_jax.inspection.inspect import inspect
from rwp_jax.pytorch import import_
from rwp_jax.training.jax_setup import prepare


@contextlib.contextmanager
def _named(path: str, key: str) -> Iterator[None]:
    """Makes errors of the `with` block name these flags for the checkpoint and the key in it."""
    try:
        yield
    except InputError as error:
        text = re.sub(r"(?<![\w./-])(?:torch_checkpoint|path)=", f"{path}=", str(error))
        raise InputError(re.sub(r"(?<![\w./-])(?:torch_)?key=", f"{key}=", text)) from None


def import_network() -> None:
    """Imports a checkpoint; the old name of the mode has flags of its own."""
    old = flags.MODE.value == "import_torch"
    path, key = (flags.TORCH_CHECKPOINT, flags.TORCH_KEY) if old else (flags.PATH, flags.KEY)
    prepare(flags.CONFIG.value.dtype)
    with _named(path.name, key.name):
        import_.import_network(
            flags.CONFIG.value,
            path_of(flags.WORKDIR),
            path_of(path),
            path_of(flags.TORCH_OPTIMIZER),
            flags.EPOCH.value,
            key.value,
            path_of(flags.NAME_MAP),
        )


def inspect_path() -> None:
    """Prints what a run, a checkpoint or a file of data is."""
    if flags.WORKDIR.present:
        raise InputError("--workdir is not for --mode=inspect: name the run as --path DIR")
    inspect(flags.PATH.value, flags.CONFIG.value, flags.KEY.value, program_name())
