"""Adversarial training with adversarial weight perturbation (Wu et al., 2020) on CIFAR-10.

    python main.py --config configs/cifar10_at_awp.py      # L_inf, epsilon 8/255
    python main.py --config configs/cifar10_at_awp.py:l2   # L_2, epsilon 128/255

Expected (Yu et al., 2022, Table 1, PreActResNet-18, PGD-20 accuracy in %, best / last):
L_inf 55.54 / 54.64, L_2 72.72 / 72.48.
Table 2's row needs `--config.model.name=wrn-34-10`: 85.67 natural, 58.57 PGD-20, best.
"""

from rwp_jax.configs import cifar10_at


def get_config(threat: str = "l_inf"):
    config = cifar10_at.get_config(threat)
    config.weight_perturbation.name = "awp"
    return config
