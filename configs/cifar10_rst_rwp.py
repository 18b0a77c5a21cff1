"""RST with robust weight perturbation (Yu et al., 2022) on CIFAR-10.

    python main.py --config configs/cifar10_rst_rwp.py --config.extra_data.path=FILE

Expected (Yu et al., 2022, Table 2, WRN-28-10, L_inf, best, in %): natural 88.87,
FGSM 69.71, PGD-20 64.11, PGD-100 63.92, C&W_inf 62.03, AutoAttack 60.36.
See cifar10_rst.py for FILE and epsilon.
"""

from rwp_jax.configs import cifar10_rst


def get_config():
    config = cifar10_rst.get_config()
    config.weight_perturbation.name = "rwp"
    return config
