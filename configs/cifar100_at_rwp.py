"""Adversarial training with robust weight perturbation (Yu et al., 2022) on CIFAR-100.

    python main.py --config configs/cifar100_at_rwp.py      # L_inf, epsilon 8/255
    python main.py --config configs/cifar100_at_rwp.py:l2   # L_2, epsilon 128/255

Expected (Yu et al., 2022, Table 1, PreActResNet-18, PGD-20 accuracy in %, best / last):
L_inf 31.17 / 30.64, L_2 45.71 / 45.05.
"""

from rwp_jax.configs import cifar100_at


def get_config(threat: str = "l_inf"):
    config = cifar100_at.get_config(threat)
    config.weight_perturbation.name = "rwp"
    return config
