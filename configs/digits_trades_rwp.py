"""TRADES with robust weight perturbation (Yu et al., 2022) on scikit-learn's 8x8 digits.

python main.py --config configs/digits_trades_rwp.py
"""

from configs import digits_trades


def get_config():
    config = digits_trades.get_config()
    config.weight_perturbation.name = "rwp"
    return config
