"""`python -m rwp_jax`, the same as `rwp-jax` and, in the repository, `python main.py`."""

import importlib.util
import sys

# The distributions behind these names come with the extra `train`.
_NEEDED = (
    "absl",
    "jinja2",
    "matplotlib",
    "ml_collections",
    "orbax",
    "safetensors",
    "sklearn",
    "tensorboardX",
    "tqdm",
)


def main() -> None:
    """Runs the command line, where what it needs is installed."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        print(
            f"rwp-jax: {', '.join(missing)} missing: the command line needs pip install 'rwp-jax[train]' "
            "(in the repository, pip install -r requirements.txt)",
            file=sys.stderr,
        )
        sys.exit(2)
    from rwp_jax.command_line import program

    program.main()


if __name__ == "__main__":
    main()
