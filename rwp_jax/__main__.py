"""`python -m rwp_jax`, the same as `rwp-jax` and, in the repository, `python main.py`."""

from rwp_jax.errors import exit_without_extra


def main() -> None:
    """Runs the command line, where what it needs is installed."""
    exit_without_extra("rwp-jax")
    from rwp_jax.command_line import program

    program.main()


if __name__ == "__main__":
    main()
