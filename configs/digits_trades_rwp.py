"""TRADES with robust weight perturbation (Yu et al., 2022) on scikit-learn's 8x8 digits.

    python main.py --config configs/digits_trades_rwp.py

Expected (our own run, seed 0; no paper reports results): natural / PGD-20 accuracy in %
97.8 / 75.8 best, 97.5 / 73.6 last. Three minutes on 2 CPU cores.
"""

from rwp_jax.configs import digits_trades


def get_config():
    config = digits_trades.get_config()
    config.weight_perturbation.name = "rwp"
    return config
