"""AT with adversarial weight perturbation (AWP; Wu et al., 2020) on a hundred of scikit-learn's digits.

    python main.py --config configs/digits_at_awp.py       # L_inf, epsilon 0.3
    python main.py --config configs/digits_at_awp.py:l2    # L_2, epsilon 0.8
    python main.py --config configs/digits_at_awp.py:full  # trains on four fifths of the digits, L_inf

Expected (our own runs; no paper reports results): natural / PGD-20 accuracy in %, mean of seeds 0 to 4,
72.5 / 29.6 best, 72.8 / 28.6 last: the five runs end between 12 and 38% under PGD-20. `l2`, seed 0: 90.4 /
47.5 best, 93.6 / 45.0 last; `full`, seed 0: 97.5 / 75.0 best, 97.8 / 71.4 last. A run takes three minutes
of CPU time.
"""

from rwp_jax.configs import digits_at


def get_config(setting: str = "l_inf"):
    config = digits_at.get_config(setting)
    config.weight_perturbation.name = "awp"
    return config
