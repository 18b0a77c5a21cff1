"""MART (Wang et al., 2020) on CIFAR-10 with adversarial weight perturbation (Wu et al., 2020).

    python main.py --config configs/cifar10_mart_awp.py          # L_inf, epsilon 8/255
    python main.py --config configs/cifar10_mart_awp.py:l2       # L_2, epsilon 128/255

Expected: not measured, and Yu et al. (2022) report no results for MART.
"""

from rwp_jax.configs import cifar10_mart


def get_config(threat: str = "l_inf"):
    config = cifar10_mart.get_config(threat)
    config.weight_perturbation.name = "awp"
    return config
