"""Adversarial training (Madry et al., 2018) on CIFAR-10, the paper's baseline.

    python main.py --config configs/cifar10_at.py          # L_inf, epsilon 8/255
    python main.py --config configs/cifar10_at.py:l2       # L_2, epsilon 128/255

Expected (Yu et al., 2022, Table 1, PreActResNet-18, PGD-20 accuracy in %, best / last):
L_inf 52.32 / 45.08, L_2 69.40 / 66.02.
Table 2's row needs `--config.model.name=wrn-34-10`: 86.52 natural, 55.47 PGD-20, best.
"""

from rwp_jax.configs import default
from rwp_jax.errors import InputError
from rwp_jax.names import spelled


def get_config(threat: str = "l_inf"):
    config = default.get_config()
    config.data.name = "cifar10"
    config.augment.padding = 4
    config.augment.flip = True
    config.model.name = "preactresnet18"
    config.model.mean = (0.4914, 0.4822, 0.4465)
    config.model.std = (0.2471, 0.2435, 0.2616)
    config.weight_perturbation.name = "none"
    if spelled(threat) == "l_2":
        config.threat.norm = "l_2"
        config.threat.epsilon = 128 / 255
        config.attack.step_size = 15 / 255
        config.evaluation.step_size = 15 / 255
    elif spelled(threat) != "l_inf":
        raise InputError(f"--config: the part after ':' is {threat!r}, must be l_inf or l_2")
    return config
