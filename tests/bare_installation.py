"""Checks that `pip install .` suffices for AutoAttack, PGD and weight perturbation of any network.

.ci/run runs this file with the Python of such an installation, outside the repository.
"""

import subprocess
import sys

import flax.linen as nn
import jax
import numpy as np
import optax

import rwp_jax


class Network(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(4)(x.reshape(len(x), -1))


def main():
    x = np.random.default_rng(0).uniform(size=(16, 4, 4, 1)).astype(np.float32)
    network = Network()
    params = network.init(jax.random.key(0), x)
    logits_fn = lambda images: network.apply(params, images)
    y = np.asarray(logits_fn(x).argmax(-1), np.int32)

    result = rwp_jax.autoattack(logits_fn, x, y, epsilon=0.1)
    assert 0 < result.robust.mean() < 1, result.robust
    threat_model = rwp_jax.make_threat_model("l_inf", 0.1)
    x_adv = rwp_jax.pgd(logits_fn, x, y, threat_model, steps=5, step_size=0.05)
    assert (logits_fn(x_adv).argmax(-1) != y).any()

    losses = lambda p: optax.softmax_cross_entropy_with_integer_labels(network.apply(p, x_adv), y)
    rwp = rwp_jax.make_weight_perturbation("rwp", gamma=0.01, steps=3, c_min=5.0)
    assert rwp_jax.perturb_and_differentiate(losses, params, rwp).steps == 3

    try:
        rwp_jax.load_run("runs/x")
    except ImportError as error:
        assert "pip install 'rwp-jax[train]'" in str(error)
    else:
        raise AssertionError("load_run works without what it needs")
    assert set(dir(rwp_jax)) == {name for name in dir(rwp_jax) if hasattr(rwp_jax, name)}
    assert "autoattack" in dir(rwp_jax) and "load_run" not in dir(rwp_jax)
    for module in ("rwp_jax", "rwp_jax.zoo", "rwp_jax.parity"):
        command = [sys.executable, "-m", module, "--config", "digits_at_rwp"]
        refused = subprocess.run(command, capture_output=True, text=True)
        assert refused.returncode == 2 and refused.stderr.count("\n") == 1, refused.stderr
        assert "pip install 'rwp-jax[train]'" in refused.stderr
    print("a bare installation attacks and perturbs:", result.robust.mean())


if __name__ == "__main__":
    main()
