"""Adversarial training (Madry et al., 2018) on CIFAR-100, the paper's baseline.

    python main.py --config configs/cifar100_at.py      # L_inf, epsilon 8/255
    python main.py --config configs/cifar100_at.py:l2   # L_2, epsilon 128/255

Expected (Yu et al., 2022, Table 1, PreActResNet-18, PGD-20 accuracy in %, best / last):
L_inf 27.79 / 20.95, L_2 40.95 / 36.24.
"""

from rwp_jax.configs import cifar10_at


def get_config(threat: str = "l_inf"):
    config = cifar10_at.get_config(threat)
    config.data.name = "cifar100"
    config.augment.pad_mode = "zero"
    config.augment.rotation = 15.0
    config.model.mean = (0.5070751592371323, 0.48654887331495095, 0.4409178433670343)
    config.model.std = (0.2673342858792401, 0.2564384629170883, 0.27615047132568404)
    config.weight_perturbation.c_min = 4.0
    return config
