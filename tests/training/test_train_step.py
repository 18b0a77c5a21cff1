import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from rwp_jax.attacks.threat_model import make_threat_model
from rwp_jax.data.augment import make_augment
from rwp_jax.distributed import devices
from rwp_jax.models.classifier import make_classifier
from rwp_jax.training.objectives import make_objective
from rwp_jax.training.optimizer import make_sgd
from rwp_jax.training.train_step import (
    PGDSettings,
    Recipe,
    TrainingSet,
    attack_and_update,
    init_state,
    make_train_step,
)
from rwp_jax.training.weight_averaging import Averaging
from rwp_jax.training.weight_perturbation import make_weight_perturbation

BATCH = 16
RATE = 0.1
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (40, 8, 8, 1), dtype=np.uint8)
LABELS = RNG.integers(0, 10, 40, dtype=np.int32)
DATA = TrainingSet(IMAGES, LABELS, np.ones(40, np.float32))
ORDER = RNG.permutation(40).astype(np.int32)


def make_step(
    axis_name=devices.AXIS, c_min=2.6, perturb_from=0, objective="at", network=None, **settings
):
    # L_2, because sign steps would hide a gradient of the wrong magnitude.
    variant, bn = ("madry", "train") if objective == "at" else ("trades", "eval")
    network = {"name": "wrn-10-1"} | (network or {})
    network |= {"mean": (0.3,), "std": (0.4,), "dtype": "float64", "axis_name": axis_name}
    recipe = Recipe(
        make_classifier(num_classes=10, **network),
        make_objective(objective, **settings),
        make_threat_model("l_2", 0.5, variant),
        PGDSettings(3, 0.1, bn),
        make_weight_perturbation("rwp", 0.02, 4, c_min),
        perturb_from,
        make_sgd(RATE, 0.9, 5e-4),
    )
    augment = make_augment(padding=1, flip=True, rotation=15.0)
    return recipe, make_train_step(recipe, augment, lambda step: RATE, axis_name)


def run(step, state, spread=lambda indices: indices, data=DATA):
    """Takes three steps and returns the last state and the metrics of each step."""
    history = []
    for begin in (0, 8, 16):
        indices = spread(ORDER[begin : begin + BATCH])
        state, metrics = step(state, data, indices, jax.random.key(3))
        history.append(jax.device_get(metrics))
    return jax.device_get(state), history


@pytest.fixture(scope="module")
def alone():
    """Returns the run on one device, without a mapped axis."""
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


@pytest.mark.parametrize("mode", devices.MODES)
def test_eight_devices_give_the_run_of_one(alone, mode):
    assert jax.device_count() == 8
    recipe, step = make_step()
    state = devices.replicate(init_state(recipe, jax.random.key(0), (8, 8, 1)))
    mapped = devices.data_parallel(step, (False, False, True, False), mode, donate=(0,))
    steps = [metrics["perturbation_steps"] for metrics in alone[1]]
    gates = [metrics["gate_open"] for metrics in alone[1]]
    assert max(steps) > 0 and min(gates) < BATCH, "the case must exercise the gate"
    assert_same_run(alone, run(mapped, state))


def test_eight_devices_give_the_run_of_one_for_a_dm_network():
    settings = {"network": {"name": "dm-wrn-10-1", "bn_momentum": 0.01}}
    recipe, step = make_step(axis_name=None, **settings)
    state = init_state(recipe, jax.random.key(0), (8, 8, 1))
    alone = run(jax.jit(step), state)
    gates = [metrics["gate_open"] for metrics in alone[1]]
    assert min(gates) > 0 and max(gates) < BATCH, "the case must exercise the gate"
    # Three steps fold the moments of five forwards each; other momenta are far from this share.
    moments = recipe.classifier.train(alone[0].params, IMAGES / 255)[1]
    share = np.linalg.norm(alone[0].batch_stats["bn"]["mean"]) / np.linalg.norm(
        moments["bn"]["mean"]
    )
    assert share == pytest.approx(1 - 0.99**15, rel=0.02)
    mapped = devices.data_parallel(
        make_step(**settings)[1], (False, False, True, False), "pmap", donate=(0,)
    )
    assert_same_run(alone, run(mapped, devices.replicate(state)))


MIXED = TrainingSet(  # half of the labels missing, those examples weighted 0.5
    IMAGES, np.where(ORDER % 2, LABELS, -1), np.where(ORDER % 2, 1, 0.5).astype(np.float32)
)
RST = {"objective": "rst", "beta": 6.0, "entropy_weight": 0.5}


def test_eight_devices_give_the_run_of_one_for_rst():
    """Devices have different shares of labelled examples, so their means over labelled examples differ."""
    by_device = (MIXED.labels[ORDER[:BATCH]] >= 0).reshape(8, -1).mean(1)
    assert len(set(by_device)) > 1
    recipe, step = make_step(axis_name=None, c_min=2.0, **RST)
    state = init_state(recipe, jax.random.key(0), (8, 8, 1))
    alone = run(jax.jit(step), state, data=MIXED)
    assert {"natural_loss", "robust_loss", "entropy"} <= alone[1][0].keys()
    gates = [metrics["gate_open"] for metrics in alone[1]]
    assert min(gates) > 0 and max(gates) < BATCH, "the case must exercise the gate"
    mapped = devices.data_parallel(
        make_step(c_min=2.0, **RST)[1], (False, False, True, False), "pmap"
    )
    assert_same_run(alone, run(mapped, devices.replicate(state), data=MIXED))


def test_the_gate_of_trades_looks_at_the_summed_kl():
    """The gate uses neither the cross-entropy nor a mean over classes or the batch."""
    recipe, _ = make_step(axis_name=None, objective="trades", beta=6.0)
    state = init_state(recipe, jax.random.key(0), (8, 8, 1))
    x, y = IMAGES[:BATCH] / 255, LABELS[:BATCH]
    start = 0.3 * np.random.default_rng(1).standard_normal(x.shape)
    recipe = recipe._replace(attack=PGDSettings(0, 0.1, "eval"))
    logits, logits_adv = (
        recipe.classifier.train(state.params, images)[0] for images in (x, x + start)
    )
    log_p, log_q = jax.nn.log_softmax(logits), jax.nn.log_softmax(logits_adv)
    natural = -np.asarray(log_p)[np.arange(BATCH), y]
    by_class = np.asarray(jnp.exp(log_p) * (log_p - log_q))
    summed = natural + 6 * by_class.sum(1)
    wrong = {
        "cross-entropy": natural,
        "mean over classes": natural + 6 * by_class.mean(1),
        "mean over the batch": natural + 6 * by_class.sum(1).mean(),
        "no beta": natural + by_class.sum(1),
        "weighted": 0.5 * summed,
    }
    # A threshold between two losses for which every wrong quantity gives another count.
    ordered = np.sort(summed)
    counts = lambda losses, c_min: (losses < c_min).sum()
    c_min, expected = next(
        (c, counts(summed, c))
        for c in (ordered[1:] + ordered[:-1]) / 2
        if all(counts(losses, c) != counts(summed, c) for losses in wrong.values())
    )
    recipe = recipe._replace(perturbation=make_weight_perturbation("rwp", 0.02, 1, c_min))
    step = lambda state: attack_and_update(recipe, state, x, y, start, weight=0.5)[2].gate_open
    assert jax.jit(step)(state) == expected


def test_one_mapped_device_gives_the_same_run(alone):
    recipe, step = make_step()
    mapped = jax.pmap(
        step,
        axis_name=devices.AXIS,
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
    """At learning rate 0, a perturbed step leaves parameters bit-identical and updates the statistics."""
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


def test_devices_may_normalise_by_themselves():
    """With per-device BatchNorm, an unperturbed first step is the mean of the devices' separate steps."""
    recipe, _ = make_step(axis_name=None, c_min=0.0)
    recipe = recipe._replace(attack=PGDSettings(1, 0.1, "train"), per_device_batch_norm=True)
    state = init_state(recipe, jax.random.key(0), (8, 8, 1))
    x, y = IMAGES[:BATCH] / 255, LABELS[:BATCH]
    step = lambda axis: lambda s, x, y: attack_and_update(recipe, s, x, y, 0 * x, axis)[0]
    mapped = devices.data_parallel(step(devices.AXIS), (False, True, True), "pmap")
    together = mapped(devices.replicate(state), x, y)
    alone = jax.jit(step(None))
    parts = [alone(state, x[i : i + 2], y[i : i + 2]) for i in range(0, BATCH, 2)]
    mean = jax.tree.map(lambda *leaves: np.mean(leaves, 0), *parts)
    for tree, other in ((together.params, mean.params), (together.batch_stats, mean.batch_stats)):
        for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-10)


def _dtypes(jaxpr):
    """Yields the dtypes of all arrays in a traced program, scalars excluded."""
    for equation in jaxpr.eqns:
        for variable in (*equation.invars, *equation.outvars):
            if getattr(variable.aval, "shape", ()) != ():
                yield variable.aval.dtype.name
        for inner in jaxprs_in_params(equation.params):
            yield from _dtypes(inner)


@pytest.mark.parametrize("objective", ["natural", "at", "trades", "rst", "mart"])
def test_a_float32_step_is_float32_throughout_under_x64(objective):
    """All arrays are float32; constant scalars may be float64, like Python numbers."""
    recipe, _ = make_step(None, objective=objective, beta=6.0, entropy_weight=0.1)
    recipe = recipe._replace(
        classifier=make_classifier("wrn-10-1", 10, (0.3,), (0.4,)), averaging=Averaging(0.9)
    )
    step = make_train_step(recipe, make_augment(padding=1), lambda step: RATE, None)
    state = init_state(recipe, jax.random.key(0), IMAGES.shape[1:])
    traced = jax.make_jaxpr(step)(state, DATA, ORDER[:BATCH], jax.random.key(3))
    assert "float64" not in set(_dtypes(traced.jaxpr))
    new_state, metrics = jax.eval_shape(step, state, DATA, ORDER[:BATCH], jax.random.key(3))
    shapes = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)
    assert shapes(new_state) == shapes(state)
    assert metrics["loss"].dtype == "float32"
