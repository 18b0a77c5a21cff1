"""Adversarial training with robust weight perturbation (RWP) on a hundred of scikit-learn's 8x8 digits.

    python main.py --config configs/digits_at_rwp.py       # L_inf, epsilon 0.3
    python main.py --config configs/digits_at_rwp.py:l2    # L_2, epsilon 0.8
    python main.py --config configs/digits_at_rwp.py:full  # trains on four fifths of the digits, L_inf

Expected (our own runs; no paper reports results): natural / PGD-20 accuracy in %, mean of seeds 0 to 4,
89.9 / 38.6 best, 90.6 / 37.5 last; `l2`, seed 0: 92.2 / 47.6 best, 93.4 / 46.3 last; `full`, seed 0: 97.5
/ 75.3 best, 97.8 / 74.4 last. A run takes four minutes of CPU time.
"""

from rwp_jax.configs import digits_at


def get_config(setting: str = "l_inf"):
    config = digits_at.get_config(setting)
    config.weight_perturbation.name = "rwp"
    config.weight_perturbation.c_min = 1.7
    return config
