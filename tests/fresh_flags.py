"""The flags of the command line as no test before has left them."""

from absl import flags

from rwp_jax.command_line import modes  # noqa: F401  (it defines them)


def forget_flags() -> None:
    """Gives every flag its default; flags of a config's keys, which parsing defines, are removed."""
    for name in list(flags.FLAGS):
        if name.startswith("config."):
            delattr(flags.FLAGS, name)
        else:
            flags.FLAGS[name].unparse()
    flags.FLAGS.mark_as_parsed()
