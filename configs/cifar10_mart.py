"""MART (Wang et al., 2020) on CIFAR-10.

    python main.py --config configs/cifar10_mart.py          # L_inf, epsilon 8/255
    python main.py --config configs/cifar10_mart.py:l2       # L_2, epsilon 128/255

Expected: no figures of ours; Yu et al. (2022) have none for MART. beta is that of the authors' script for
WideResNets. All else is as in TRADES's config; their script has 90 epochs, weight decay 7e-4 and steps of
0.007, and attacks in L_inf alone: `:l2` is ours.
"""

from rwp_jax.configs import cifar10_trades


def get_config(threat: str = "l_inf"):
    config = cifar10_trades.get_config(threat)
    config.objective.name = "mart"
    config.objective.beta = 6.0
    return config
