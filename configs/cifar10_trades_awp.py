"""TRADES with adversarial weight perturbation (Wu et al., 2020) on CIFAR-10.

    python main.py --config configs/cifar10_trades_awp.py      # L_inf, epsilon 8/255
    python main.py --config configs/cifar10_trades_awp.py:l2   # L_2, epsilon 128/255

Expected (Yu et al., 2022, Table 2, WRN-34-10, L_inf, best, in %): natural 84.55,
FGSM 62.99, PGD-20 59.20, PGD-100 59.05, C&W_inf 55.92, AutoAttack 55.32.
The paper reports no results for L_2.
"""

from rwp_jax.configs import cifar10_trades


def get_config(threat: str = "l_inf"):
    config = cifar10_trades.get_config(threat)
    config.weight_perturbation.name = "awp"
    return config
