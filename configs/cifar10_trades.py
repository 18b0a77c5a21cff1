"""TRADES (Zhang et al., 2019) on CIFAR-10.

    python main.py --config configs/cifar10_trades.py          # L_inf, epsilon 8/255
    python main.py --config configs/cifar10_trades.py:l2       # L_2, epsilon 128/255

Expected (Yu et al., 2022, Table 2, WRN-34-10, L_inf, best, in %): natural 84.42,
FGSM 61.20, PGD-20 56.05, PGD-100 55.85, C&W_inf 53.67, AutoAttack 52.64.
The paper reports no results for L_2.
"""

from rwp_jax.configs import cifar10_at


def get_config(threat: str = "l_inf"):
    config = cifar10_at.get_config(threat)
    config.augment.pad_mode = "zero"
    config.model.name = "wrn-34-10"
    config.model.mean = config.model.std = ()
    config.attack.variant = "trades"
    config.attack.bn = "eval"
    if config.threat.norm == "l_2":  # learning rate of the script's L_2 attack
        config.attack.step_size = 2 * config.threat.epsilon / config.attack.steps
    config.objective.name = "trades"
    config.objective.beta = 6.0
    config.weight_perturbation.gamma = 0.005
    config.weight_perturbation.start_epoch = 9  # the tenth epoch
    config.optimizer.schedule = "piecewise_epoch"
    return config
