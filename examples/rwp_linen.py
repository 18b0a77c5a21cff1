"""Trains with RWP in a training loop of your own in Flax linen and optax, on scikit-learn's digits.

    pip install ".[train]"
    python examples/rwp_linen.py

BatchNorm: the attack normalises by the running statistics (eval mode), the losses by the batch. Each step
folds one batch's moments into the running statistics: the moments of the attacked images at w + v, from the
pass that also gives the update's gradient (`perturbed.aux`). `perturbed.aux_unperturbed` has the statistics
folded at w.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

import rwp_jax

# For fast gradients in loops on CPUs; on GPUs and TPUs nn.Conv itself is as fast.
Conv = functools.partial(nn.Conv, conv_general_dilated=rwp_jax.conv_general_dilated)


class Network(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        for features in (16, 32):
            x = Conv(features, (3, 3), use_bias=False)(x)
            x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
            x = nn.avg_pool(x, (2, 2), (2, 2))
        return nn.Dense(10)(x.reshape(len(x), -1))


network = Network()
optimizer = optax.sgd(0.05, momentum=0.9)
threat_model = rwp_jax.make_threat_model("l_inf", 0.2)
perturbation = rwp_jax.make_weight_perturbation("rwp", gamma=0.01, steps=10, c_min=1.7)


def logits_fn(params, batch_stats, x):
    return network.apply({"params": params, "batch_stats": batch_stats}, x, train=False)


@jax.jit
def train_step(params, batch_stats, opt_state, x, y, key):
    attacked = lambda images: logits_fn(params, batch_stats, images)
    x_adv = rwp_jax.pgd(attacked, x, y, threat_model, steps=5, step_size=0.05, key=key)

    def per_example(params):
        variables = {"params": params, "batch_stats": batch_stats}
        logits, updated = network.apply(variables, x_adv, train=True, mutable=["batch_stats"])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
        return losses, updated["batch_stats"]

    perturbed = rwp_jax.perturb_and_differentiate(per_example, params, perturbation)
    w_plus_v = jax.tree.map(jnp.add, params, perturbed.v)
    updates, opt_state = optimizer.update(perturbed.gradient, opt_state, w_plus_v)
    params = optax.apply_updates(params, updates)  # applied to w, which removes v
    return params, perturbed.aux, opt_state, perturbed.loss.mean(), perturbed.steps


def main(epochs: int = 10) -> float:
    """Trains, prints a line per epoch, and returns the PGD-20 accuracy on the last 360 digits."""
    digits = load_digits()
    images, labels = np.float32(digits.images[..., None] / 16), digits.target
    variables = network.init(jax.random.key(0), images[:1], train=False)
    params, batch_stats = variables["params"], variables["batch_stats"]
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
