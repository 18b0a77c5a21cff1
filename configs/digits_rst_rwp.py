"""RST with robust weight perturbation (Yu et al., 2022) on scikit-learn's 8x8 digits, both stages.

python main.py --config configs/digits_rst_rwp.py
"""

from configs import digits_rst


def get_config():
    config = digits_rst.get_config()
    config.weight_perturbation.name = "rwp"
    return config
