"""TRADES (Zhang et al., 2019) on scikit-learn's 8x8 digits, trained on four fifths of them.

    python main.py --config configs/digits_trades.py

Expected (our own run, seed 0; no paper reports results): natural / PGD-20 accuracy in %
97.8 / 76.4 best, 97.5 / 76.1 last. Two minutes on 2 CPU cores.
"""

from rwp_jax.configs import digits_at


def get_config():
    config = digits_at.get_config("full")
    config.attack.variant = "trades"
    config.attack.bn = "eval"
    config.objective.name = "trades"
    config.objective.beta = 6.0
    config.weight_perturbation.gamma = 0.005
    config.weight_perturbation.start_epoch = 2  # of 30 epochs, like 9 of 200 on CIFAR-10
    config.optimizer.schedule = "piecewise_epoch"
    return config
