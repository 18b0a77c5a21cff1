"""Resets command-line flags, so that no test sees values that an earlier test set."""

from absl import flags

from rwp_jax.command_line import modes  # noqa: F401  (importing it defines the flags)


def forget_flags() -> None:
    """Resets every flag to its default and removes the `config.*` flags that parsing defines."""
    for name in list(flags.FLAGS):
        if name.startswith("config."):
            delattr(flags.FLAGS, name)
        else:
            flags.FLAGS[name].unparse()
    flags.FLAGS.mark_as_parsed()
