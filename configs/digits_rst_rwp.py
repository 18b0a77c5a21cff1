"""RST with robust weight perturbation (Yu et al., 2022) on scikit-learn's 8x8 digits, both stages.

    python main.py --config configs/digits_rst_rwp.py

Expected (our own run, seed 0; no paper reports results): natural / PGD-20 accuracy in %
98.1 / 76.4 best, 98.1 / 75.3 last. Five minutes on 2 CPU cores.
"""

from rwp_jax.configs import digits_rst


def get_config():
    config = digits_rst.get_config()
    config.weight_perturbation.name = "rwp"
    return config
