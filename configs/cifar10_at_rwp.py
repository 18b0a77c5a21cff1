"""Adversarial training with robust weight perturbation (Yu et al., 2022) on CIFAR-10.

    python main.py --config configs/cifar10_at_rwp.py      # L_inf, epsilon 8/255
    python main.py --config configs/cifar10_at_rwp.py:l2   # L_2, epsilon 128/255

Expected (Yu et al., 2022, Table 1, PreActResNet-18, PGD-20 accuracy in %, best / last):
L_inf 58.55 / 58.01, L_2 74.47 / 73.84.
Table 2's row needs `--config.model.name=wrn-34-10`: 86.86 natural, 62.87 PGD-20, best.
"""

from rwp_jax.configs import cifar10_at


def get_config(threat: str = "l_inf"):
    config = cifar10_at.get_config(threat)
    config.weight_perturbation.name = "rwp"
    return config
