"""Runs AutoAttack on networks in Flax linen, Flax NNX and as a plain function, on scikit-learn's digits.

    pip install ".[train]"
    python examples/autoattack_own_model.py

Each network becomes a pure function from images in [0, 1] to logits, in evaluation mode. In training mode
Dropout would make logits random, and BatchNorm would make them depend on the rest of the batch.
"""

import flax.linen as nn
import jax
import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits

import rwp_jax

digits = load_digits()
images, labels = np.float32(digits.images[..., None] / 16), digits.target
x_train, y_train, x_test, y_test = images[:1437], labels[:1437], images[1437:], labels[1437:]


def train(forward, params, steps: int = 100):
    """Trains without attacks; `forward(params, x, key)` returns logits in training mode."""
    optimizer = optax.adam(0.01)

    @jax.jit
    def step(params, opt_state, key):
        losses = lambda params: optax.softmax_cross_entropy_with_integer_labels(
            forward(params, x_train, key), y_train
        )
        gradient = jax.grad(lambda params: losses(params).mean())(params)
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    opt_state = optimizer.init(params)
    for key in jax.random.split(jax.random.key(1), steps):
        params, opt_state = step(params, opt_state, key)
    return params


def linen_network():
    class Network(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            x = nn.relu(nn.Dense(64)(x.reshape(len(x), -1)))
            return nn.Dense(10)(nn.Dropout(0.1, deterministic=not train)(x))

    network = Network()
    variables = network.init(jax.random.key(0), x_train[:1], train=False)
    forward = lambda variables, x, key: network.apply(
        variables, x, train=True, rngs={"dropout": key}
    )
    variables = train(forward, variables)
    return lambda x: network.apply(variables, x, train=False)


def nnx_network():
    network = nnx.Sequential(
        lambda x: x.reshape(len(x), -1),
        nnx.Linear(64, 64, rngs=nnx.Rngs(0)),
        nnx.relu,
        nnx.BatchNorm(64, rngs=nnx.Rngs(0)),
        nnx.Linear(64, 10, rngs=nnx.Rngs(1)),
    )
    optimizer = nnx.Optimizer(network, optax.adam(0.01), wrt=nnx.Param)

    @nnx.jit
    def step(network, optimizer):
        losses = lambda network: optax.softmax_cross_entropy_with_integer_labels(
            network(x_train), y_train
        )
        optimizer.update(network, nnx.grad(lambda network: losses(network).mean())(network))

    network.train()
    for _ in range(100):
        step(network, optimizer)
    network.eval()
    graph, state = nnx.split(network)
    return lambda x: nnx.merge(graph, state)(x)


def plain_function():
    init = jax.nn.initializers.he_normal()
    keys = jax.random.split(jax.random.key(0))
    params = {"hidden": init(keys[0], (64, 64)), "output": init(keys[1], (64, 10))}

    def logits(params, x):
        return jax.nn.relu(x.reshape(len(x), -1) @ params["hidden"]) @ params["output"]

    params = train(lambda params, x, key: logits(params, x), params)
    return lambda x: logits(params, x)


def main(count: int = 100, **arguments) -> dict[str, tuple[float, float]]:
    """Returns each network's clean and robust accuracy on `count` images; `arguments` go to autoattack."""
    accuracies = {}
    networks = {"linen": linen_network(), "NNX": nnx_network(), "plain": plain_function()}
    for name, logits_fn in networks.items():
        result = rwp_jax.autoattack(
            logits_fn, x_test[:count], y_test[:count], norm="l_inf", epsilon=0.05, **arguments
        )
        accuracies[name] = result.robust_after["clean"].mean(), result.robust.mean()
        print(
            f"{name}: clean {accuracies[name][0]:.1%}, robust {accuracies[name][1]:.1%}",
            *result.warnings,
        )
    return accuracies


if __name__ == "__main__":
    main()
