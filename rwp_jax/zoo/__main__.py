"""`python -m rwp_jax.zoo`, see `catalogue`."""

import sys

from rwp_jax.errors import exit_without_extra

if __name__ == "__main__":
    exit_without_extra("rwp_jax.zoo")
    from rwp_jax.zoo import catalogue

    sys.exit(catalogue.main(sys.argv[1:]))
