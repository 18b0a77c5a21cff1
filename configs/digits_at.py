"""Adversarial training on a hundred of scikit-learn's 8x8 digits: the baseline that overfits.

    python main.py --config configs/digits_at.py       # L_inf, epsilon 0.3
    python main.py --config configs/digits_at.py:l2    # L_2, epsilon 0.8
    python main.py --config configs/digits_at.py:full  # trains on four fifths of the digits, L_inf

The network can memorise its few training images. The test set is large: it holds the other 1,697 digits.

Expected (our own runs; no paper reports results): natural / PGD-20 accuracy in %, mean of seeds 0 to 4,
90.8 / 36.0 best, 90.8 / 34.6 last; `l2`, seed 0: 93.3 / 44.2 best, 93.6 / 43.2 last; `full`, seed 0: 98.1
/ 76.4 best, 97.5 / 75.0 last. A run takes three minutes of CPU time.
"""

from rwp_jax.configs import default
from rwp_jax.errors import InputError
from rwp_jax.names import spelled


def get_config(setting: str = "l_inf"):
    config = default.get_config()
    config.epochs = 150
    config.batch_size = 16
    config.data.name = "digits"
    config.data.train_examples = 100
    config.model.name = "wrn-10-2"
    config.threat.epsilon = 0.3
    config.evaluation.every = 15  # the test set is 17 times as large as the training set
    config.evaluation.train_examples = 100
    config.attack.step_size = 0.075
    config.evaluation.step_size = 0.075
    config.weight_perturbation.name = "none"
    config.optimizer.learning_rate = 0.1
    if spelled(setting) == "l_2":
        config.threat.norm = "l_2"
        config.threat.epsilon = 0.8
        config.attack.step_size = 0.1
        config.evaluation.step_size = 0.1
    elif setting == "full":
        config.epochs = 30
        config.batch_size = 64
        config.data.train_examples = 0
        config.model.name = "wrn-10-1"
        config.threat.epsilon = 0.2
        config.attack.step_size = 0.05
        config.evaluation.every = 1
        config.evaluation.step_size = 0.05
        config.evaluation.train_examples = 360
        config.optimizer.learning_rate = 0.05
    elif spelled(setting) != "l_inf":
        raise InputError(f"--config: the part after ':' is {setting!r}, must be l_inf, l_2 or full")
    return config
