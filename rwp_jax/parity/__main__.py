"""`python -m rwp_jax.parity`, see `run_cases`."""

import sys

from rwp_jax.errors import exit_without_extra

exit_without_extra("rwp_jax.parity")

from rwp_jax.parity import run_cases  # noqa: E402, imports what the extra brings

sys.exit(run_cases.main())
