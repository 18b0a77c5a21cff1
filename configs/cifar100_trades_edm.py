"""TRADES on CIFAR-100 and generated images, by the recipe of Wang et al. (2023, arXiv:2302.04638).

    python main.py --config configs/cifar100_trades_edm.py --config.extra_data.path=FILE      # L_inf
    python main.py --config configs/cifar100_trades_edm.py:l2 --config.extra_data.path=FILE   # L_2

FILE holds generated images of CIFAR-100's classes; see cifar10_trades_edm.py.

Expected (Wang et al., 2023, WRN-28-10, 50 million images and a longer schedule, natural / AutoAttack
accuracy in %): L_inf 72.58 / 38.83, of the averaged weights, `best_by_validation_ema`. They report no
results for L_2.
"""

from rwp_jax.configs import cifar10_trades_edm


def get_config(threat: str = "l_inf"):
    config = cifar10_trades_edm.get_config(threat)
    config.data.name = "cifar100"
    config.model.mean = (0.5071, 0.4865, 0.4409)
    config.model.std = (0.2673, 0.2564, 0.2762)
    config.augment.rotation = 15.0
    # CIFAR-100's value for AT, and the least loss of a smoothed target.
    config.weight_perturbation.c_min = 4.8
    return config
