"""Adversarial training with adversarial weight perturbation (Wu et al., 2020) on CIFAR-100.

    python main.py --config configs/cifar100_at_awp.py      # L_inf, epsilon 8/255
    python main.py --config configs/cifar100_at_awp.py:l2   # L_2, epsilon 128/255

Expected (Yu et al., 2022, Table 1, PreActResNet-18, PGD-20 accuracy in %, best / last):
L_inf 30.89 / 30.48, L_2 45.63 / 44.98.
"""

from rwp_jax.configs import cifar100_at


def get_config(threat: str = "l_inf"):
    config = cifar100_at.get_config(threat)
    config.weight_perturbation.name = "awp"
    return config
