"""Adversarial training with adversarial weight perturbation (AWP) on scikit-learn's 8x8 digits.

    python main.py --config configs/digits_at_awp.py

No paper has figures for it; ours are in README.md. About three minutes on 2 CPU cores.
"""

from configs import digits_at


def get_config():
    config = digits_at.get_config()
    config.weight_perturbation.name = "awp"
    return config
