"""Adversarial training with robust weight perturbation (Yu et al., 2022) on SVHN.

    python main.py --config configs/svhn_at_rwp.py      # L_inf, epsilon 8/255
    python main.py --config configs/svhn_at_rwp.py:l2   # L_2, epsilon 128/255

Expected (Yu et al., 2022, Table 1, PreActResNet-18, PGD-20 accuracy in %, best / last):
L_inf 61.15 / 57.45, L_2 73.35 / 69.48.
"""

from rwp_jax.configs import svhn_at


def get_config(threat: str = "l_inf"):
    config = svhn_at.get_config(threat)
    config.weight_perturbation.name = "rwp"
    return config
