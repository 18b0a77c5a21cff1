"""Training without attacks on CIFAR-10: RST's first stage, which labels the extra images.

    python main.py --config configs/cifar10_natural.py
    python main.py --mode pseudo_label --workdir runs/cifar10_natural --unlabeled U.npz --output P.npz

U.npz holds the images as `data`, uint8 [N, 32, 32, 3]. No paper reports results for these settings.
"""

from rwp_jax.configs import cifar10_at


def get_config():
    config = cifar10_at.get_config()
    config.augment.pad_mode = "zero"
    config.model.name = "wrn-28-10"
    config.objective.name = "natural"
    config.optimizer.schedule = "cosine"
    return config
