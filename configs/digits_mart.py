"""MART (Wang et al., 2020) on scikit-learn's 8x8 digits, trained on four fifths of them.

    python main.py --config configs/digits_mart.py

Expected (our own run, seed 0; no paper reports results): natural / PGD-20 accuracy in %
98.1 / 76.9 best, 98.1 / 76.7 last. Two minutes on 2 CPU cores shared with other jobs.
"""

from rwp_jax.configs import digits_trades


def get_config():
    config = digits_trades.get_config()
    config.objective.name = "mart"
    config.objective.beta = 6.0
    return config
