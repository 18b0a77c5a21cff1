"""MART (Wang et al., 2020) on CIFAR-10.

    python main.py --config configs/cifar10_mart.py          # L_inf, epsilon 8/255
    python main.py --config configs/cifar10_mart.py:l2       # L_2, epsilon 128/255

Expected: not measured, and Yu et al. (2022) report no results for MART. beta is that of the MART authors'
script for WideResNets. All other settings are those of TRADES's config; the MART script has 90 epochs,
weight decay 7e-4 and step size 0.007. It attacks only in L_inf; `:l2` is our addition.
"""

from rwp_jax.configs import cifar10_trades


def get_config(threat: str = "l_inf"):
    config = cifar10_trades.get_config(threat)
    config.objective.name = "mart"
    config.objective.beta = 6.0
    return config
