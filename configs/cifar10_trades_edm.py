"""TRADES on CIFAR-10 and generated images, by the recipe of Wang et al. (2023, arXiv:2302.04638).

    python main.py --config configs/cifar10_trades_edm.py --config.extra_data.path=FILE      # L_inf
    python main.py --config configs/cifar10_trades_edm.py:l2 --config.extra_data.path=FILE   # L_2

FILE is 1m.npz of github.com/wzekai99/DM-Improves-AT, or a directory of more images that
`--mode write_data` made. An epoch has 50,000 examples, seven tenths of them generated. Epsilon is 8/255 in
L_inf and 128/255 in L_2. docs/training.md compares each setting with the authors' code.

Expected (Wang et al., 2023, WRN-28-10, a longer schedule, natural / AutoAttack accuracy in %): L_inf 92.44
/ 67.31 with 20 million images, L_2 95.16 / 83.63 with 50 million (RobustBench: 83.68), of the averaged
weights, `best_by_validation_ema`.
"""

from rwp_jax.configs import cifar10_at


def get_config(threat: str = "l_inf"):
    config = cifar10_at.get_config(threat)
    config.epochs = 400
    config.epoch_examples = 50_000
    config.batch_size = 512
    config.data.validation_examples = 1024
    config.extra_data.unlabeled_fraction = 0.7
    config.augment.pad_mode = "zero"
    config.model.name = "dm-wrn-28-10"
    config.model.bn_momentum = 0.01
    config.attack.bn = "batch"
    if config.threat.norm == "l_2":  # their L_2 attack is that of TRADES
        config.attack.variant = "trades"
        config.attack.step_size = 2 * config.threat.epsilon / config.attack.steps
    config.objective.name = "rst"  # TRADES that cannot do without extra images
    config.objective.beta = 5.0
    config.objective.label_smoothing = 0.1
    config.optimizer.learning_rate = 0.2
    config.optimizer.schedule = "one_cycle_epoch"
    config.optimizer.warmup = 0.025
    config.optimizer.cycle_momentum = (0.85, 0.95)
    config.optimizer.nesterov = True
    config.optimizer.no_decay = "(^|/)bn"
    config.ema_decay = 0.995
    config.ema_start = 0.025
    config.ema_copy_batch_stats = True
    config.evaluation.validation_attack = "cw40"
    # As for TRADES, but after the warm-up; c_min is larger by the least loss of a smoothed target.
    config.weight_perturbation.gamma = 0.005
    config.weight_perturbation.start_epoch = 10
    config.weight_perturbation.c_min = 2.2
    return config
