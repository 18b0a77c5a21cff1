"""Adversarial training (Madry et al., 2018) on SVHN, the paper's baseline.

    python main.py --config configs/svhn_at.py      # L_inf, epsilon 8/255
    python main.py --config configs/svhn_at.py:l2   # L_2, epsilon 128/255

Expected (Yu et al., 2022, Table 1, PreActResNet-18, PGD-20 accuracy in %, best / last):
L_inf 53.22 / 45.13, L_2 66.71 / 65.25.

For L_2 the authors' script starts attacks at uniform(-0.5, 0.5); ours starts inside the ball.
"""

from rwp_jax.configs import cifar10_at


def get_config(threat: str = "l_inf"):
    config = cifar10_at.get_config(threat)
    config.data.name = "svhn_cropped"
    config.augment.padding = 0
    config.augment.flip = False
    config.model.mean = config.model.std = (0.5, 0.5, 0.5)
    if config.threat.norm == "l_inf":
        config.attack.step_size = config.evaluation.step_size = 1 / 255
    config.weight_perturbation.start_epoch = 5
    config.optimizer.learning_rate = 0.01
    return config
