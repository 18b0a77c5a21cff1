"""Trains with RWP in a training loop of your own on plain functions, on scikit-learn's digits.

    pip install ".[train]"
    python examples/rwp_plain.py

BatchNorm: the attack normalises by the running statistics (eval mode), the losses by the batch. Each step
folds two batches' moments into the running statistics: first those of the clean images, then those of the
attacked images, both at w + v. The loss passes the two batches through the network in this order.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

import rwp_jax

optimizer = optax.sgd(0.05, momentum=0.9)
threat_model = rwp_jax.make_threat_model("l_inf", 0.2)
# The mask, a tree of bools as in optax, perturbs only the weights of the first layer.
perturbation = rwp_jax.make_weight_perturbation(
    "rwp",
    gamma=0.01,
    steps=10,
    c_min=1.7,
    mask={"hidden": True, "scale": False, "bias": False, "output": False},
)


def init(key):
    keys = jax.random.split(key)
    params = {
        "hidden": jax.random.normal(keys[0], (64, 128)) / 8,
        "scale": jnp.ones(128),
        "bias": jnp.zeros(128),
        "output": jax.random.normal(keys[1], (128, 10)) / 11,
    }
    return params, {"mean": jnp.zeros(128), "var": jnp.ones(128)}


def forward(params, moments, x):
    """Returns logits and the batch's moments; normalises by `moments`, or by the batch's if None."""
    hidden = x.reshape(len(x), -1) @ params["hidden"]
    batch = {"mean": hidden.mean(0), "var": hidden.var(0)}
    used = batch if moments is None else moments
    hidden = (hidden - used["mean"]) / jnp.sqrt(used["var"] + 1e-5)
    return jax.nn.relu(params["scale"] * hidden + params["bias"]) @ params["output"], batch


def logits_fn(params, batch_stats, x):
    return forward(params, batch_stats, x)[0]


@jax.jit
def train_step(params, batch_stats, opt_state, x, y, key):
    attacked = lambda images: logits_fn(params, batch_stats, images)
    x_adv = rwp_jax.pgd(attacked, x, y, threat_model, steps=5, step_size=0.05, key=key)

    def per_example(params):
        losses, moments = [], []
        for images in (x, x_adv):
            logits, batch = forward(params, None, images)
            losses.append(optax.softmax_cross_entropy_with_integer_labels(logits, y))
            moments.append(batch)
        return (losses[0] + losses[1]) / 2, moments

    perturbed = rwp_jax.perturb_and_differentiate(per_example, params, perturbation)
    w_plus_v = jax.tree.map(jnp.add, params, perturbed.v)
    updates, opt_state = optimizer.update(perturbed.gradient, opt_state, w_plus_v)
    params = optax.apply_updates(params, updates)  # applied to w, which removes v
    for batch in perturbed.aux:
        batch_stats = jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, batch_stats, batch)
    return params, batch_stats, opt_state, perturbed.loss.mean(), perturbed.steps


def main(epochs: int = 10) -> float:
    """Trains, prints a line per epoch, and returns the PGD-20 accuracy on the last 360 digits."""
    digits = load_digits()
    images, labels = np.float32(digits.images[..., None] / 16), digits.target
    params, batch_stats = init(jax.random.key(0))
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
