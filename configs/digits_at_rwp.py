"""Adversarial training with robust weight perturbation (RWP) on scikit-learn's 8x8 digits.

    python main.py --config configs/digits_at_rwp.py

No paper has figures for it; ours are in README.md. Under five minutes on 2 CPU cores.
"""

from configs import digits_at


def get_config():
    config = digits_at.get_config()
    config.weight_perturbation.name = "rwp"
    config.weight_perturbation.c_min = 1.7
    return config
