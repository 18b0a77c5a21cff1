"""The ascent loop against Algorithm 1 in NumPy, on a model with known gradients."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rwp_jax.distributed.uncached import uncached
from rwp_jax.errors import InputError
from rwp_jax.training.weight_ascent import perturb_and_differentiate
from rwp_jax.training.weight_perturbation import make_weight_perturbation

RNG = np.random.default_rng(0)
FEATURES = RNG.standard_normal((12, 4))
PARAMS = {"w": RNG.standard_normal((4, 3)), "u": RNG.standard_normal((3, 2)), "b": np.ones(2)}


class Outputs(NamedTuple):
    values: Any
    gate_loss: Any


def losses(params):
    """Returns losses [12], (x w u + b)^2 / 2 summed over outputs, and as aux the outputs and the losses."""
    outputs = FEATURES @ params["w"] @ params["u"] + params["b"]
    loss = (outputs**2).sum(-1) / 2
    return loss, Outputs(outputs, loss)


def gradient(params, weights):
    """Returns the gradient of the mean of weights * losses, derived by hand."""
    hidden = FEATURES @ params["w"]
    residual = weights[:, None] * (hidden @ params["u"] + params["b"]) / len(weights)
    return {
        "w": FEATURES.T @ residual @ params["u"].T,
        "u": hidden.T @ residual,
        "b": residual.sum(0),
    }


def norm(tree):
    return np.sqrt(sum((np.asarray(tree[name]) ** 2).sum() for name in ("w", "u")))


def plus(v):
    return {name: PARAMS[name] + v.get(name, 0) for name in PARAMS}


def algorithm_1(gamma, low, high, steps, accumulate):
    """Returns (v, steps taken, open gates at each evaluation), with v for the matrices only."""
    v = raw = {"w": np.zeros((4, 3)), "u": np.zeros((3, 2))}
    gated = []
    for _ in range(steps + 1):
        loss = losses(plus(v))[0]
        gate = (loss >= low) & (loss < high)
        gated.append(gate.sum())
        if len(gated) > steps or not gate.any():
            break
        g = gradient(plus(v), gate.astype(float))
        base = raw if accumulate == "reference" else v
        raw = {name: base[name] + g[name] for name in v}
        v = {name: gamma * norm(PARAMS) / norm(raw) * raw[name] for name in v}
    return v, len(gated) - 1, gated


LOSS = losses(PARAMS)[0]
# Thresholds halfway between two losses, because a loss at the threshold could round either way.
ORDERED = np.sort(LOSS)
QUARTER, MIDDLE = ORDERED[2:4].mean(), ORDERED[5:7].mean()


def run(max_steps=None, **settings):
    perturbation = make_weight_perturbation(**settings)
    run = jax.jit(lambda p: perturb_and_differentiate(losses, p, perturbation, max_steps=max_steps))
    return run(PARAMS)


@pytest.mark.parametrize("accumulate", ["reference", "paper"])
@pytest.mark.parametrize("c_min", [QUARTER, MIDDLE, np.inf])
@pytest.mark.parametrize("low", [0.0, ORDERED[1:3].mean()])
def test_rwp_is_algorithm_1(accumulate, c_min, low):
    settings = {"gamma": 0.1, "steps": 6, "accumulate": accumulate}
    ours = run(name="rwp", c_min=c_min, lsc_low=low, **settings)
    v, steps, gated = algorithm_1(0.1, low, c_min, 6, accumulate)
    assert (ours.steps, ours.gate_open, ours.gate_left) == (steps, gated[0], gated[-1])
    for name in v:
        np.testing.assert_allclose(ours.v[name], v[name], rtol=1e-12, atol=1e-15)
    assert not ours.v["b"].any(), "vectors are not perturbed"
    np.testing.assert_allclose(norm(ours.v), 0.1 * norm(PARAMS), rtol=1e-12)
    # The gradient, loss and aux are those at w + v, aux_unperturbed is that at w.
    for name, expected in gradient(plus(v), np.ones(12)).items():
        np.testing.assert_allclose(ours.gradient[name], expected, rtol=1e-11)
    np.testing.assert_allclose(ours.loss, losses(plus(v))[0], rtol=1e-12)
    np.testing.assert_allclose(ours.aux.values, losses(plus(v))[1].values, rtol=1e-12)
    np.testing.assert_allclose(ours.aux_unperturbed.values, losses(PARAMS)[1].values, rtol=1e-12)


def test_the_gate_looks_at_gate_loss_and_the_ascent_at_the_loss():
    """With a weighted loss, the gate uses the loss without weights and the ascent the weighted one."""
    weights = np.linspace(0.5, 2, 12)

    def weighted(params):
        loss, outputs = losses(params)
        return weights * loss, outputs

    perturbation = make_weight_perturbation("rwp", 0.1, 1, c_min=MIDDLE)
    ours = jax.jit(
        lambda p: perturb_and_differentiate(
            weighted, p, perturbation, gate_loss=lambda loss, aux: aux.gate_loss
        )
    )(PARAMS)
    assert ours.gate_open == 6
    g = gradient(PARAMS, weights * (LOSS < MIDDLE))
    for name in ("w", "u"):
        expected = 0.1 * norm(PARAMS) / norm(g) * g[name]
        np.testing.assert_allclose(ours.v[name], expected, rtol=1e-12)


def test_the_two_ways_to_accumulate_differ():
    one, other = (
        run(name="rwp", gamma=0.1, steps=6, accumulate=a).v["w"] for a in ("reference", "paper")
    )
    assert np.abs(one - other).max() > 1e-3 * np.abs(one).max()


def test_leaves_the_loop_when_no_example_is_left():
    """With a large gamma, the losses of the gated examples soon exceed c_min and the loop ends."""
    c_min = ORDERED[0] * 1.05
    _, steps, gated = algorithm_1(0.5, 0, c_min, 50, "reference")
    assert 0 < steps < 50 and gated[-1] == 0, "the case must run dry"
    ours = run(name="rwp", gamma=0.5, steps=50, c_min=c_min)
    assert (ours.steps, ours.gate_left) == (steps, 0)


def passes(**settings):
    """Returns how often the compiled loop evaluates the losses, and its number of steps."""
    calls = []

    def counted(params):
        jax.debug.callback(lambda: calls.append(1))
        return losses(params)

    perturbation = make_weight_perturbation(**settings)
    result = jax.jit(lambda p: perturb_and_differentiate(counted, p, perturbation))(PARAMS)
    jax.block_until_ready(result)
    jax.effects_barrier()
    return len(calls), int(result.steps)


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({"name": "none", "gamma": 0.1, "steps": 6}, 0),
        ({"name": "awp", "gamma": 0.1, "steps": 6}, 1),
        ({"name": "rwp", "gamma": 0.1, "steps": 6, "c_min": 0.0}, 0),
        ({"name": "rwp", "gamma": 0.1, "steps": 6, "c_min": np.inf}, 6),
        ({"name": "rwp", "gamma": 0.1, "steps": 0, "c_min": np.inf}, 0),
    ],
)
def test_k_steps_cost_k_plus_1_passes(settings, steps):
    assert passes(**settings) == (steps + 1, steps)


def test_without_steps_the_gradient_is_plain():
    for ours in (run(name="none"), run(name="rwp", gamma=0.1, steps=6, max_steps=jnp.asarray(0))):
        assert not any(leaf.any() for leaf in jax.tree.leaves(ours.v))
        for name, expected in gradient(PARAMS, np.ones(12)).items():
            np.testing.assert_allclose(ours.gradient[name], expected, rtol=1e-12)


@pytest.mark.parametrize(("low", "high"), [(0.0, np.inf), (QUARTER, MIDDLE)])
def test_awp_scales_each_tensor_by_its_own_norm(low, high):
    ours = run(name="awp", gamma=0.1, lsc_low=low, lsc_high=high, c_min=0.0)  # AWP has no c_min
    gate = ((low <= LOSS) & (high > LOSS)).astype(float)
    assert ours.gate_open == gate.sum() > 0
    g = gradient(PARAMS, gate)
    for name in ("w", "u"):
        expected = 0.1 * np.linalg.norm(PARAMS[name]) / np.linalg.norm(g[name]) * g[name]
        np.testing.assert_allclose(ours.v[name], expected, rtol=1e-12)


def test_the_gate_is_strict_above_and_has_no_bound_at_zero():
    gate = make_weight_perturbation("rwp", 0.1, 1, c_min=1.5).gate
    below = np.nextafter(1.5, 0)
    assert gate(np.array([-1e-9, 0.0, below, 1.5, 2.0, np.nan])).tolist() == [1, 1, 1, 0, 0, 0]
    gate = make_weight_perturbation("awp", 0.1, lsc_low=1.0, lsc_high=2.0).gate
    assert gate(np.array([0.9, 1.0, 1.9, 2.0])).tolist() == [0, 1, 1, 0]
    assert not make_weight_perturbation("rwp", 0.1, 1, c_min=0.0).gate(np.zeros(3)).any()
    assert make_weight_perturbation("rwp", 0.1, 1, c_min=np.inf).gate(np.full(3, 1e30)).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "sam"}, "name='sam' must be one of none, awp, rwp"),
        ({"name": "rwp", "gamma": -1.0}, "gamma=-1.0 must be in"),
        ({"name": "rwp", "gamma": float("nan")}, "gamma=nan must be in"),
        ({"name": "rwp", "c_min": -0.1}, "c_min=-0.1 must be in"),
        (
            {"name": "awp", "gamma": 0.1, "mask": b"all"},
            "mask=b'all' must be a tree of True and False, or a function",
        ),
        (
            {"name": "awp", "gamma": 0.1, "mask": "all"},
            "mask='all' must be a tree of True and False",
        ),
        ({"name": "awp", "gamma": 0.1, "mask": None}, "mask=None must be a tree"),
        ({"name": "awp", "gamma": ""}, "gamma='' must be in"),
        ({"name": "awp", "gamma": False}, "gamma=False must be in"),
        ({"name": "rwp", "gamma": 0.1, "steps": ""}, "steps='' must be an integer"),
        ({"name": "rwp", "gamma": 0.1, "steps": 2**40}, "steps=.* and below 2.31"),
        ({"name": "awp", "gamma": 0.1, "lsc_low": "a"}, "lsc_low='a' must be in"),
        ({"name": "awp", "gamma": 0.1, "lsc_high": None}, "lsc_high=None must be in"),
        ({"name": "rwp", "steps": -1}, "steps=-1 must be an integer of at least 0"),
        ({"name": "rwp", "accumulate": "sum"}, "accumulate='sum' must be one of reference, paper"),
        ({"name": "awp", "lsc_low": 2.0, "lsc_high": 1.0}, "must satisfy 0 <= lsc_low <= lsc_high"),
    ],
)
def test_refusals(settings, message):
    with pytest.raises(InputError, match=message):
        make_weight_perturbation(**settings)


def test_gradients_may_be_exchanged_in_bfloat16(programs_for):
    """Each device's sum is rounded to bfloat16 before the total is formed."""
    perturbation = make_weight_perturbation("none")
    shards = FEATURES[:8].reshape(8, 1, 4)

    def differentiate(gradient_dtype):
        def on_device(params, x):
            losses = lambda p: (
                ((x @ p["w"]) ** 2).sum(-1),
                Outputs((), ((x @ p["w"]) ** 2).sum(-1)),
            )
            return perturb_and_differentiate(
                losses, params, perturbation, axis_name="batch", gradient_dtype=gradient_dtype
            ).gradient

        mapped = jax.pmap(on_device, axis_name="batch", in_axes=(None, 0), out_axes=None)
        with uncached():
            return np.asarray(mapped({"w": PARAMS["w"]}, shards)["w"])

    each = [2 * x.T @ (x @ PARAMS["w"]) / 8 for x in shards]
    np.testing.assert_allclose(differentiate(""), sum(each), rtol=1e-12)
    narrow = differentiate("bfloat16")
    assert narrow.dtype == np.float64
    size = sum(np.abs(g) for g in each)
    assert (np.abs(narrow - sum(each)) <= 8 * 2.0**-9 * size).all()
    assert (narrow != sum(each)).any() and (narrow == narrow.astype(jnp.bfloat16)).all()
