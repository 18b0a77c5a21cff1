"""`python -m rwp_jax.parity`, see `run_cases`."""

import sys

from rwp_jax.errors import exit_without_extra

if __name__ == "__main__":
    exit_without_extra("rwp_jax.parity")
    from rwp_jax.parity import run_cases

    sys.exit(run_cases.main())
