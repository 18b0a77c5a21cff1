import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rwp_jax import parallel
from rwp_jax.attacks.threat_model import make_threat_model
from rwp_jax.data.augment import make_augment
from rwp_jax.models.classifier import make_classifier
from rwp_jax.objectives import make_objective
from rwp_jax.optimizer import make_sgd
from rwp_jax.train_step import Attack, Recipe, TrainingSet, init_state, make_train_step
from rwp_jax.weight_perturbation import make_weight_perturbation

BATCH = 16
RATE = 0.1
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (40, 8, 8, 1), dtype=np.uint8)
LABELS = RNG.integers(0, 10, 40, dtype=np.int32)
DATA = TrainingSet(IMAGES, LABELS, np.ones(40, np.float32))
ORDER = RNG.permutation(40).astype(np.int32)


def make_step(axis_name=parallel.AXIS, norm="l_2", c_min=2.6, perturb_from=0, name="rwp"):
    # L_2, because a gradient of the wrong magnitude would be invisible to sign steps.
    recipe = Recipe(
        make_classifier("wrn-10-1", 10, (0.3,), (0.4,), dtype="float64", axis_name=axis_name),
        make_objective("at"),
        make_threat_model(norm, 0.5),
        Attack(3, 0.1, "train"),
        make_weight_perturbation(name, 0.02, 4, c_min),
        perturb_from,
        make_sgd(RATE, 0.9, 5e-4),
    )
    augment = make_augment(padding=1, flip=True, rotation=15.0)
    return recipe, make_train_step(recipe, augment, lambda step: RATE, axis_name)


def run(step, state, spread=lambda indices: indices):
    """Three steps; returns the state and the metrics of each."""
    history = []
    for begin in (0, 8, 16):
        indices = spread(ORDER[begin : begin + BATCH])
        state, metrics = step(state, DATA, indices, jax.random.key(3))
        history.append(jax.device_get(metrics))
    return jax.device_get(state), history


@pytest.fixture(scope="module")
def alone():
    """The run on one device: no axis at all."""
    recipe, step = make_step(axis_name=None)
    return run(jax.jit(step), init_state(recipe, jax.random.key(0), (8, 8, 1)))


def assert_same_run(one, other):
    for a, b in zip(jax.tree.leaves(one[0]), jax.tree.leaves(other[0]), strict=True):
        scale = max(np.abs(np.asarray(a)).max(), 1)
        np.testing.assert_allclose(b, a, atol=1e-10 * scale, rtol=0)
    for a, b in zip(one[1], other[1], strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_allclose(b[name], a[name], rtol=1e-10, err_msg=name)


@pytest.mark.parametrize("mode", parallel.MODES)
def test_eight_devices_give_the_run_of_one(alone, mode):
    assert jax.device_count() == 8
    recipe, step = make_step()
    state = parallel.replicate(init_state(recipe, jax.random.key(0), (8, 8, 1)))
    mapped = parallel.data_parallel(step, (False, False, True, False), mode, donate=(0,))
    steps = [metrics["perturbation_steps"] for metrics in alone[1]]
    gates = [metrics["gate_open"] for metrics in alone[1]]
    assert max(steps) > 0 and min(gates) < BATCH, "the case must exercise the gate"
    assert_same_run(alone, run(mapped, state))


def test_one_mapped_device_gives_the_same_run(alone):
    recipe, step = make_step()
    mapped = jax.pmap(
        step,
        axis_name=parallel.AXIS,
        in_axes=(None, None, 0, None),
        out_axes=None,
        devices=jax.devices()[:1],
    )
    state = init_state(recipe, jax.random.key(0), (8, 8, 1))
    assert_same_run(alone, run(mapped, state, lambda indices: indices[None]))


def test_perturbation_starts_at_its_step():
    recipe, step = make_step(axis_name=None, c_min=float("inf"), perturb_from=1)
    state = init_state(recipe, jax.random.key(0), (8, 8, 1))
    _, history = run(jax.jit(step), state)
    assert [int(metrics["perturbation_steps"]) for metrics in history] == [0, 4, 4]
    assert history[0]["perturbation_norm"] == 0
    np.testing.assert_allclose(history[1]["perturbation_norm"], 0.02, rtol=1e-9)


def test_weights_are_restored(alone):
    """With learning rate 0 a perturbed step changes no parameter by a bit, the statistics it does."""
    recipe, _ = make_step(axis_name=None, c_min=float("inf"))
    recipe = recipe._replace(optimizer=make_sgd(0.0, 0.9, 5e-4))
    step = make_train_step(recipe, lambda keys, images: images, lambda step: 0.0)
    state = init_state(recipe, jax.random.key(0), (8, 8, 1))
    after, metrics = jax.jit(step)(state, DATA, ORDER[:BATCH], jax.random.key(3))
    assert metrics["perturbation_norm"] > 0
    for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(after.params), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.allclose(
        state.batch_stats["bn"]["mean"], after.batch_stats["bn"]["mean"], atol=1e-6
    )


def test_the_step_counts_up_and_reports_float_metrics(alone):
    state, history = alone
    assert state.step == 3
    for metrics in history:
        assert 0 <= metrics["robust_accuracy"] <= 1 and metrics["learning_rate"] == RATE
        assert jnp.isfinite(metrics["loss"])
