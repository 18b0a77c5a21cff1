"""The recipe of Wang et al. (2023) with each objective and weight perturbation: devices, resumption."""

import itertools

import flax.linen as nn
import jax
import numpy as np
import pytest

import rwp_jax
from rwp_jax.configs import digits_at_rwp
from rwp_jax.data import writing
from rwp_jax.distributed import devices
from rwp_jax.runs.metrics import read_metrics
from rwp_jax.training import experiment, trainer
from rwp_jax.training.train_step import TrainingSet, fetched, init_state
from tests.own_code import keep_registered
from tests.small import building_once, shrink, write_two_classes
from tests.training.test_extension import interrupted
from tests.training.test_trainer import assert_same_run, final_state

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (40, 8, 8, 1), dtype=np.uint8)
LABELS = RNG.integers(0, 10, 40, dtype=np.int32)
# As with extra images of weight 0.5.
WEIGHTS = np.where(np.arange(40) < 20, 1, 0.5).astype(np.float32)
ORDER = RNG.permutation(40).astype(np.int32)
BATCH, STEPS = 16, 3
# Of the four steps of two epochs, the last three average.
ON = {
    "model.name": "small_wang",
    "objective.label_smoothing": 0.1,
    "ema_decay": 0.995,
    "ema_start": 0.5,
    "ema_copy_batch_stats": True,
    "augment.padding": 1,
    "augment.flip": True,
    "augment.cutout": 3,
    "augment.cutmix": 1.0,
    "attack.bn": "batch",
    "optimizer.schedule": "one_cycle_epoch",
    "optimizer.warmup": 0.3,
    "optimizer.cycle_momentum": (0.85, 0.95),
    "optimizer.nesterov": True,
    "optimizer.clip_norm": 0.5,
    "optimizer.no_decay": "BatchNorm",
}


class Small(nn.Module):
    """A convolution, BatchNorm and a linear layer: compiles fast."""

    num_classes: int
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, train):
        x = nn.Conv(4, (3, 3))(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, axis_name=self.axis_name)(x))
        return nn.Dense(self.num_classes)(x.reshape(len(x), -1))


@pytest.fixture(scope="module", autouse=True)
def small_network(few_optimizations):
    """Registers the network."""
    with pytest.MonkeyPatch.context() as patch:
        keep_registered(patch)
        rwp_jax.register_model("small_wang", rwp_jax.from_linen(Small))
        yield


def config_of(**changes):
    return shrink(digits_at_rwp.get_config(), **ON | changes)


def run(config, count: int):
    """Takes three steps on the first devices; returns the last state and the metrics of each step."""
    mesh = devices.mesh_of(jax.devices()[:count])
    parts = experiment.build(config, 10, steps_per_epoch=2, mesh=mesh)
    state = jax.device_get(init_state(parts.recipe, jax.random.key(0), IMAGES.shape[1:]))
    data, history = TrainingSet(IMAGES, LABELS, WEIGHTS), []
    for begin in range(0, 4 * STEPS, 4):
        indices = ORDER[begin : begin + BATCH].reshape(count, -1)
        sent = np.concatenate([indices, np.zeros((count, 1), np.int32)], 1).ravel()
        state, metrics, _ = parts.train_step(state, data, sent, jax.random.key(3), parts.numbers)
        history += fetched([metrics])
    return jax.device_get(state), history


DM_NETWORK = {
    "model.name": "dm-wrn-10-1",
    "model.bn_momentum": 0.01,
    "weight_perturbation.c_min": 2.4,
    "optimizer.no_decay": "(^|/)bn",
}
CASES = list(itertools.product(["at", "trades", "rst", "trades_lse"], ["none", "awp", "rwp"], [{}]))


@pytest.mark.parametrize(
    ("objective", "perturbation", "changes"), [*CASES, ("trades", "rwp", DM_NETWORK)]
)
def test_eight_devices_give_the_run_of_one(objective, perturbation, changes):
    """In L_2, because sign steps would hide a gradient of the wrong magnitude."""
    config = config_of(
        **{
            "objective.name": objective,
            "objective.beta": 5.0,
            "weight_perturbation.name": perturbation,
            "weight_perturbation.c_min": 0.5 if objective == "trades_lse" else 3.0,
            "threat.norm": "l_2",
            "threat.epsilon": 0.5,
            "attack.step_size": 0.1,
            **changes,
        }
    )
    (one, alone), (other, spread) = run(config, 1), run(config, 8)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-10 * max(np.abs(np.asarray(a)).max(), 1))
    for a, b in zip(alone, spread, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_allclose(b[name], a[name], rtol=1e-10, err_msg=name)
    norms = [metrics["perturbation_norm"] for metrics in alone]
    assert min(norms) > 0 if perturbation != "none" else max(norms) == 0
    if perturbation == "rwp":
        gates = [metrics["gate_open"] for metrics in alone]
        assert max(gates) > 0 and min(gates) < BATCH, "the case must exercise the gate"
    # The average is none of the trained weights any more, and has their running statistics.
    pairs = zip(jax.tree.leaves(one.ema.params), jax.tree.leaves(one.params), strict=True)
    assert not any(np.array_equal(*pair) for pair in pairs)
    pairs = zip(jax.tree.leaves(one.ema.batch_stats), jax.tree.leaves(one.batch_stats), strict=True)
    assert all(np.array_equal(*pair) for pair in pairs)


def test_an_interrupted_run_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    """Of streamed images; the first signal comes before the average begins, the second after it."""
    path = write_two_classes(tmp_path / "data.npz", train=60, test=20)
    with np.load(path) as held:
        np.savez(tmp_path / "extra.npz", image=held["x_train"][::-1], label=held["y_train"][::-1])
    writing.write_set(tmp_path / "extra.npz", tmp_path / "extra")
    config = config_of(
        **{
            "data.path": path,
            "objective.name": "rst",
            "epoch_examples": 48,
            "extra_data.path": str(tmp_path / "extra"),
            "extra_data.unlabeled_fraction": 0.7,
            "data.validation_examples": 10,
            "evaluation.validation_attack": "cw1",
            "evaluation.train_examples": 0,
        }
    )
    with building_once():
        summary = trainer.train(config, tmp_path / "undisturbed")
        call = lambda: trainer.train(config, tmp_path / "run")
        interrupted(monkeypatch, 2, call)
        interrupted(monkeypatch, 3, call)
        call()
    assert_same_run(tmp_path / "run", tmp_path / "undisturbed")
    state = final_state(tmp_path / "run")
    names = jax.tree.leaves(state["ema"]["params"]), jax.tree.leaves(state["params"])
    assert not any(np.array_equal(*pair) for pair in zip(*names, strict=True))
    assert summary["best_by_validation_ema"]["validation_attack"] == "cw1"
    (held_out, *_) = (r for r in read_metrics(tmp_path / "run") if r["split"] == "validation")
    assert "ema_pgd_accuracy" in held_out
