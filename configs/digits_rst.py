"""Robust self-training (RST; Carmon et al., 2019) on scikit-learn's 8x8 digits, both stages.

    python main.py --config configs/digits_rst.py

A third of the training images keep their labels. A network trained on these without attacks labels the
others; then TRADES trains on batches of which half is labelled and half pseudo-labelled.

Expected (our own run, seed 0; no paper reports results): natural / PGD-20 accuracy in %
98.1 / 78.3 best, 97.8 / 75.8 last. Under three minutes on 2 CPU cores.
"""

from rwp_jax.configs import digits_trades


def get_config():
    config = digits_trades.get_config()
    config.data.labeled_examples = 479
    config.epoch_examples = 1437  # the size of the whole training set
    config.extra_data.unlabeled_fraction = 0.5
    config.self_training.epochs = 30
    config.objective.name = "rst"
    config.optimizer.nesterov = True
    config.optimizer.schedule = "cosine_epoch"
    return config
