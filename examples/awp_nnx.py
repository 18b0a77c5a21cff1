"""Trains with AWP in a training loop of your own in Flax NNX and optax, on scikit-learn's digits.

    pip install ".[train]"
    python examples/awp_nnx.py

BatchNorm: the attack normalises by the running statistics (eval mode), the losses by the batch. Each step
folds one batch's moments into the running statistics: the moments of the attacked images at w, before the
weight perturbation (`perturbed.aux_unperturbed`). `perturbed.aux` has the statistics folded at w + v.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits

import rwp_jax

# For fast gradients in loops on CPUs; on GPUs and TPUs nnx.Conv itself is as fast.
Conv = functools.partial(nnx.Conv, conv_general_dilated=rwp_jax.conv_general_dilated)


class Network(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.conv1 = Conv(1, 16, (3, 3), use_bias=False, rngs=rngs)
        self.norm1 = nnx.BatchNorm(16, momentum=0.9, rngs=rngs)
        self.conv2 = Conv(16, 32, (3, 3), use_bias=False, rngs=rngs)
        self.norm2 = nnx.BatchNorm(32, momentum=0.9, rngs=rngs)
        self.head = nnx.Linear(32 * 2 * 2, 10, rngs=rngs)

    def __call__(self, x):
        x = nnx.avg_pool(nnx.relu(self.norm1(self.conv1(x))), (2, 2), (2, 2))
        x = nnx.avg_pool(nnx.relu(self.norm2(self.conv2(x))), (2, 2), (2, 2))
        return self.head(x.reshape(len(x), -1))


graph, PARAMS, BATCH_STATS = nnx.split(Network(nnx.Rngs(0)), nnx.Param, nnx.BatchStat)
optimizer = optax.sgd(0.05, momentum=0.9)
threat_model = rwp_jax.make_threat_model("l_inf", 0.2)
perturbation = rwp_jax.make_weight_perturbation("awp", gamma=0.01)


def logits_fn(params, batch_stats, x):
    network = nnx.merge(graph, params, batch_stats)
    network.eval()
    return network(x)


@jax.jit
def train_step(params, batch_stats, opt_state, x, y, key):
    attacked = lambda images: logits_fn(params, batch_stats, images)
    x_adv = rwp_jax.pgd(attacked, x, y, threat_model, steps=5, step_size=0.05, key=key)

    def per_example(params):
        network = nnx.merge(graph, params, batch_stats, copy=True)  # its statistics change
        network.train()
        losses = optax.softmax_cross_entropy_with_integer_labels(network(x_adv), y)
        return losses, nnx.state(network, nnx.BatchStat)

    perturbed = rwp_jax.perturb_and_differentiate(per_example, params, perturbation)
    w_plus_v = jax.tree.map(jnp.add, params, perturbed.v)
    updates, opt_state = optimizer.update(perturbed.gradient, opt_state, w_plus_v)
    params = optax.apply_updates(params, updates)  # applied to w, which removes v
    return params, perturbed.aux_unperturbed, opt_state, perturbed.loss.mean(), perturbed.steps


def main(epochs: int = 10) -> float:
    """Trains, prints a line per epoch, and returns the PGD-20 accuracy on the last 360 digits."""
    digits = load_digits()
    images, labels = np.float32(digits.images[..., None] / 16), digits.target
    params, batch_stats = PARAMS, BATCH_STATS
    opt_state = optimizer.init(params)
    rng = np.random.default_rng(0)
    for epoch in range(epochs):
        for step, batch in enumerate(rng.permutation(1437)[:1408].reshape(-1, 64)):
            key = jax.random.fold_in(jax.random.key(1), 22 * epoch + step)
            params, batch_stats, opt_state, loss, k = train_step(
                params, batch_stats, opt_state, images[batch], labels[batch], key
            )
        print(f"epoch {epoch + 1}: loss {loss:.3f}, {k} steps of weight ascent")

    test = lambda x: logits_fn(params, batch_stats, x)
    x, y = images[1437:], labels[1437:]
    x_adv = rwp_jax.pgd(test, x, y, threat_model, steps=20, step_size=0.05)
    accuracy = float((test(x_adv).argmax(-1) == y).mean())
    print(f"natural {(test(x).argmax(-1) == y).mean():.1%}, PGD-20 {accuracy:.1%}")
    return accuracy


if __name__ == "__main__":
    main()
