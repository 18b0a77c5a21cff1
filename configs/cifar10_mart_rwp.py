"""MART (Wang et al., 2020) on CIFAR-10 with robust weight perturbation (Yu et al., 2022).

    python main.py --config configs/cifar10_mart_rwp.py          # L_inf, epsilon 8/255
    python main.py --config configs/cifar10_mart_rwp.py:l2       # L_2, epsilon 128/255

Expected: not measured, and Yu et al. (2022) report no results for MART. c_min is AT's value, scaled like
the loss at chance (see configs/digits_mart_rwp.py); it was not tuned on CIFAR-10.
"""

from rwp_jax.configs import cifar10_mart


def get_config(threat: str = "l_inf"):
    config = cifar10_mart.get_config(threat)
    config.weight_perturbation.name = "rwp"
    config.weight_perturbation.c_min = 1.8
    return config
