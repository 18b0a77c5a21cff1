"""Messages on losses and parameters suggest what users of Flax most often get wrong."""

import flax.linen as nn
import jax
import numpy as np
import pytest
from flax import nnx

import rwp_jax
from rwp_jax.errors import InputError

X = np.random.default_rng(0).random((4, 3))
RWP = rwp_jax.make_weight_perturbation("rwp", gamma=0.01, steps=1, c_min=1.0)


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.BatchNorm(use_running_average=False)(nn.Dense(2)(x))


class Nnx(nnx.Module):
    def __init__(self):
        self.dense = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
        self.dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(1))
        self.bn = nnx.BatchNorm(2, rngs=nnx.Rngs(0))

    def __call__(self, x):
        return self.bn(self.dense(x))


def statistics_of_linen():
    variables = Linen().init(jax.random.key(0), X)
    apply = lambda params: Linen().apply({**variables, "params": params}, X)
    return variables["params"], lambda params: apply(params).sum(1)


def statistics_of_nnx():
    model = Nnx()
    _, params, _ = nnx.split(model, nnx.Param, ...)
    return params, lambda params: model(X).sum(1)


def whole_module():
    return Nnx(), lambda model: model(X).sum(1)


@pytest.mark.parametrize(
    ("case", "suggested"),
    [
        (statistics_of_linen, r"return \(losses, statistics\) with .* mutable=\['batch_stats'\]"),
        (statistics_of_nnx, r"nnx\.merge\(graph, params, batch_stats, copy=True\)"),
        (whole_module, r"params= holds .*; nnx\.split\(model, nnx\.Param, \.\.\.\)"),
    ],
)
def test_the_cause_is_suggested(case, suggested):
    params, per_example = case()
    with pytest.raises(InputError, match=suggested) as error:
        rwp_jax.perturb_and_differentiate(per_example, params, RWP)
    assert "\n" not in str(error.value)


def test_one_loss_warns():
    params = {"w": np.ones((3, 2))}
    mean = lambda params: (X @ params["w"]).mean(keepdims=True)[0]
    with pytest.warns(rwp_jax.RunWarning, match="^per_example= gives one loss: unless the batch"):
        rwp_jax.perturb_and_differentiate(mean, params, RWP)
