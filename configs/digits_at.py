"""Adversarial training on scikit-learn's 8x8 digits: the baseline that overfits.

    python main.py --config configs/digits_at.py       # L_inf, epsilon 0.2
    python main.py --config configs/digits_at.py:l2    # L_2, epsilon 0.8

Expected (our own run, seed 0; no paper has figures): natural / PGD-20 accuracy in %
97.8 / 76.4 best, 97.8 / 73.6 last. Two minutes on 2 CPU cores.
"""

from configs import default
from rwp_jax.errors import InputError


def get_config(threat: str = "linf"):
    config = default.get_config()
    config.epochs = 30
    config.batch_size = 64
    config.data.name = "digits"
    config.model.name = "wrn-10-1"
    config.threat.epsilon = 0.2
    config.evaluation.train_examples = 360
    config.attack.step_size = 0.05
    config.evaluation.step_size = 0.05
    config.weight_perturbation.name = "none"
    config.optimizer.learning_rate = 0.05
    if threat == "l2":
        config.threat.norm = "l_2"
        config.threat.epsilon = 0.8
        config.attack.step_size = 0.1
        config.evaluation.step_size = 0.1
    elif threat != "linf":
        raise InputError(f"--config: the part after ':' is {threat!r}, must be linf or l2")
    return config
