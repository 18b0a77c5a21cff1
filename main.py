"""`python main.py --config configs/digits_at_rwp.py`; `--help` lists modes and flags."""

from rwp_jax.__main__ import main

if __name__ == "__main__":
    main()
