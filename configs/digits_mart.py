"""MART (Wang et al., 2020) on scikit-learn's 8x8 digits, four fifths of which train.

    python main.py --config configs/digits_mart.py

EXPECTED
"""

from rwp_jax.configs import digits_trades


def get_config():
    config = digits_trades.get_config()
    config.objective.name = "mart"
    config.objective.beta = 6.0
    return config
