"""RST with adversarial weight perturbation (Wu et al., 2020) on CIFAR-10.

    python main.py --config configs/cifar10_rst_awp.py --config.extra_data.path=FILE

Expected (Yu et al., 2022, Table 2, WRN-28-10, L_inf, best, in %): natural 88.01,
FGSM 68.00, PGD-20 63.67, PGD-100 63.50, C&W_inf 60.55, AutoAttack 59.80.
See cifar10_rst.py for FILE and epsilon.
"""

from rwp_jax.configs import cifar10_rst


def get_config():
    config = cifar10_rst.get_config()
    config.weight_perturbation.name = "awp"
    return config
