"""A run small enough for a test."""

import numpy as np


def write_two_classes(path, train: int, test: int) -> str:
    """Writes an npz of two classes that a network tells apart at once, dark and bright images."""
    rng = np.random.default_rng(0)
    y = np.arange(train + test) % 2
    x = np.clip(rng.normal(60 + 120 * y[:, None, None, None], 30, (len(y), 8, 8, 1)), 0, 255)
    x = x.astype(np.uint8)
    np.savez(path, x_train=x[:train], y_train=y[:train], x_test=x[train:], y_test=y[train:])
    return str(path)


def shrink(config, **changes):
    """Two epochs in float64 on an npz, with two steps of each attack; then the changes."""
    config.epochs = 2
    config.batch_size = 16
    config.dtype = "float64"
    config.data.name = "npz"
    config.attack.steps = 2
    config.weight_perturbation.steps = 2
    config.evaluation.batch_size = 16
    config.evaluation.steps = 2
    config.evaluation.train_examples = 10
    config.update_from_flattened_dict(changes)
    return config
