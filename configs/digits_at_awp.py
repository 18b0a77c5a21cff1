"""Adversarial training with adversarial weight perturbation (AWP) on scikit-learn's 8x8 digits.

    python main.py --config configs/digits_at_awp.py       # L_inf, epsilon 0.3
    python main.py --config configs/digits_at_awp.py:l2    # L_2, epsilon 0.8

Expected (our own run, seed 0; no paper has figures): natural / PGD-20 accuracy in %
97.8 / 74.2 best, 97.8 / 69.7 last. Two minutes on 2 CPU cores.
"""

from configs import digits_at


def get_config(setting: str = "linf"):
    config = digits_at.get_config(setting)
    config.weight_perturbation.name = "awp"
    return config
