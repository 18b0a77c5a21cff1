"""Robust self-training (RST; Carmon et al., 2019) on CIFAR-10 and 500,000 pseudo-labelled images.

    python main.py --config configs/cifar10_rst.py --config.extra_data.path=FILE

FILE is ti_500K_pseudo_labeled.pickle of github.com/yaircarmon/semisup-adv. An epoch has 50,000 examples,
half of them extra images.

Expected (Yu et al., 2022, Table 2, WRN-28-10, L_inf, best, in %): natural 89.88,
FGSM 70.08, PGD-20 62.40, PGD-100 62.08, C&W_inf 61.14, AutoAttack 59.71.
Training and its evaluation use the RST script's epsilon 0.031, the table 8/255.
"""

from rwp_jax.configs import cifar10_trades


def get_config():
    config = cifar10_trades.get_config()
    config.batch_size = 256
    config.epoch_examples = 50_000
    config.extra_data.unlabeled_fraction = 0.5
    config.model.name = "wrn-28-10"
    config.threat.epsilon = 0.031
    config.attack.step_size = config.evaluation.step_size = 0.007
    config.objective.name = "rst"
    config.optimizer.nesterov = True
    config.optimizer.schedule = "cosine_epoch"
    return config
