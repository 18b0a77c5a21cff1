"""TRADES with adversarial weight perturbation (Wu et al., 2020) on CIFAR-10 and generated images.

    python main.py --config configs/cifar10_trades_edm_awp.py --config.extra_data.path=FILE      # L_inf
    python main.py --config configs/cifar10_trades_edm_awp.py:l2 --config.extra_data.path=FILE   # L_2

Expected: no paper reports results. See cifar10_trades_edm.py for FILE and the recipe.
"""

from rwp_jax.configs import cifar10_trades_edm


def get_config(threat: str = "l_inf"):
    config = cifar10_trades_edm.get_config(threat)
    config.weight_perturbation.name = "awp"
    return config
