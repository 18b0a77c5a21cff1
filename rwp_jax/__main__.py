"""`python -m rwp_jax --config digits_at_rwp`, the same as `rwp-jax` and `python main.py`."""

from rwp_jax.command_line.program import main

if __name__ == "__main__":
    main()
