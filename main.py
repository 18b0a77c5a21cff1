"""`python main.py --config configs/digits_at_rwp.py`; `--help` lists modes and flags."""

from rwp_jax.command_line.program import main

if __name__ == "__main__":
    main()
