"""`python -m rwp_jax.zoo`, see `catalogue`."""

import sys

from rwp_jax.errors import exit_without_extra

exit_without_extra("rwp_jax.zoo")

from rwp_jax.zoo import catalogue  # noqa: E402, imports what the extra brings

sys.exit(catalogue.main(sys.argv[1:]))
