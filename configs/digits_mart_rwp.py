"""MART (Wang et al., 2020) with robust weight perturbation (Yu et al., 2022) on scikit-learn's 8x8 digits, four fifths of which train.

    python main.py --config configs/digits_mart_rwp.py

EXPECTED
"""

from rwp_jax.configs import digits_mart


def get_config():
    config = digits_mart.get_config()
    config.weight_perturbation.name = "rwp"
    config.weight_perturbation.c_min = 3.0
    return config
