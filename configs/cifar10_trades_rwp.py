"""TRADES with robust weight perturbation (Yu et al., 2022) on CIFAR-10.

    python main.py --config configs/cifar10_trades_rwp.py      # L_inf, epsilon 8/255
    python main.py --config configs/cifar10_trades_rwp.py:l2   # L_2, epsilon 128/255

Expected (Yu et al., 2022, Table 2, WRN-34-10, L_inf, best, in %): natural 86.14,
FGSM 64.70, PGD-20 60.45, PGD-100 60.30, C&W_inf 58.07, AutoAttack 57.20.
The paper reports no results for L_2.
"""

from rwp_jax.configs import cifar10_trades


def get_config(threat: str = "l_inf"):
    config = cifar10_trades.get_config(threat)
    config.weight_perturbation.name = "rwp"
    return config
