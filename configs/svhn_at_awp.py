"""Adversarial training with adversarial weight perturbation (Wu et al., 2020) on SVHN.

    python main.py --config configs/svhn_at_awp.py      # L_inf, epsilon 8/255
    python main.py --config configs/svhn_at_awp.py:l2   # L_2, epsilon 128/255

Expected (Yu et al., 2022, Table 1, PreActResNet-18, PGD-20 accuracy in %, best / last):
L_inf 59.49 / 55.16, L_2 72.80 / 68.40.
"""

from rwp_jax.configs import svhn_at


def get_config(threat: str = "l_inf"):
    config = svhn_at.get_config(threat)
    config.weight_perturbation.name = "awp"
    return config
