"""Recomputed blocks: the same numbers and exchanges, and fewer arrays kept for the backward pass.

tests/hardware/test_budgets.py compares the memory of compiled programs for GPUs; the compiler for CPUs
merges the recomputed operations with the first ones.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rwp_jax.configs import digits_at_rwp, digits_trades_rwp
from rwp_jax.distributed import devices
from rwp_jax.errors import InputError
from rwp_jax.hardware.datasheets import GPUS
from rwp_jax.hardware.programs import lower_train
from rwp_jax.hardware.topology import Hardware
from rwp_jax.models.classifier import make_classifier, register_model
from rwp_jax.runs import layout
from rwp_jax.training import experiment, trainer
from rwp_jax.training.train_step import init_state
from tests.own_code import keep_registered
from tests.small import write_two_classes
from tests.training.test_extension import interrupted
from tests.training.test_train_step import BATCH, DATA, ORDER, make_step
from tests.training.test_trainer import final_state, small_config

SHAPE = (8, 8, 1)
REMAT = {"remat": True}


def two_steps(step, state, spread=lambda indices: indices):
    for begin in (0, 8):
        indices = spread(ORDER[begin : begin + BATCH])
        state, metrics = step(state, DATA, indices, jax.random.key(3))
    return jax.device_get(state), jax.device_get(metrics)


@pytest.fixture(scope="module")
def without():
    """Returns the initial state, and the state and metrics after two steps that recompute nothing."""
    recipe, step = make_step(axis_name=None)
    state = init_state(recipe, jax.random.key(0), SHAPE)
    return state, two_steps(jax.jit(step), state)


def assert_within(tolerance, this, that):
    for a, b in zip(jax.tree.leaves(this), jax.tree.leaves(that), strict=True):
        scale = max(np.abs(np.asarray(a)).max(), 1)
        np.testing.assert_allclose(b, a, atol=tolerance * scale, rtol=0)


def test_a_step_has_the_same_numbers(without):
    state, expected = without
    assert expected[1]["perturbation_steps"] > 0 and 0 < expected[1]["gate_open"] < BATCH
    recipe, step = make_step(axis_name=None, network=REMAT)
    assert_within(0, init_state(recipe, jax.random.key(0), SHAPE), state)
    assert_within(1e-12, two_steps(jax.jit(step), state), expected)


@pytest.mark.parametrize("mode", devices.MODES)
def test_eight_devices_have_the_same_numbers(without, mode):
    state, expected = without
    step = make_step(network=REMAT)[1]
    mapped = devices.data_parallel(step, (False, False, True, False), mode)
    assert_within(1e-12, two_steps(mapped, devices.replicate(state)), expected)


def kept(name, evaluating, remat) -> list[jax.ShapeDtypeStruct]:
    """Returns the arrays that the gradient with respect to images keeps between its two passes."""
    classifier = make_classifier(name, 10, remat=remat)
    params, batch_stats = classifier.shapes((32, 32, 3))

    def pullback(params, batch_stats, x):
        evaluated = lambda x: classifier.eval(params, batch_stats, x)
        return jax.vjp(evaluated if evaluating else lambda x: classifier.train(params, x)[0], x)[1]

    images = jax.ShapeDtypeStruct((16, 32, 32, 3), jnp.float32)
    return jax.tree.leaves(jax.eval_shape(pullback, params, batch_stats, images))


@pytest.mark.parametrize("evaluating", [False, True])
@pytest.mark.parametrize(("name", "blocks"), [("wrn-16-1", 6), ("dm-preactresnet18", 8)])
def test_of_each_block_only_the_input_is_kept(name, blocks, evaluating):
    activations = [
        sum(array.shape[0] == 16 and array.ndim == 4 for array in kept(name, evaluating, remat))
        for remat in (False, True)
    ]
    # Inputs of the first convolution and of the last BatchNorm besides; else of each layer in a block.
    assert activations[1] == blocks + 2
    assert activations[0] >= 4 * blocks + 2


@pytest.mark.parametrize("config", [digits_at_rwp, digits_trades_rwp])
def test_moments_are_neither_computed_nor_exchanged_again(config):
    """Of a block's forward pass, its second convolution is not recomputed either."""
    config = config.get_config()
    config.model.name, config.batch_size = "dm-wrn-10-1", 16
    config = experiment.filled(config, devices=2)
    hardware = Hardware("two", GPUS["h100"], devices.mesh_of(jax.devices()[:2]), {})
    texts = []
    for remat in (False, True):
        config.remat = remat
        texts.append(lower_train(config, hardware).as_text())
    for operation in ("all_gather", "all_reduce", "reduce("):
        count, again = (text.count(f"stablehlo.{operation}") for text in texts)
        assert count == again > 0, operation
    without, recomputed = (text.count("stablehlo.convolution") for text in texts)
    # Of 10 forward and 10 or 20 backward convolutions of a pass, 3 are recomputed.
    assert without < recomputed <= 1.2 * without


def test_a_run_goes_on_with_or_without(tmp_path, monkeypatch):
    """Checkpoints are the same; the setting is that of the command, not recorded as a change."""
    npz = write_two_classes(tmp_path / "data.npz", train=50, test=20)
    config = lambda **changes: small_config(**{"data.path": npz} | changes)
    trainer.train(config(), tmp_path / "without")
    directory = tmp_path / "run"
    interrupted(monkeypatch, 4, lambda: trainer.train(config(remat=True), directory))
    trainer.train(config(), directory)
    assert "history" not in (directory / layout.CONFIG).read_text()
    assert_within(1e-12, final_state(tmp_path / "without"), final_state(directory))


@pytest.mark.parametrize("remat", [1, None, "yes", np.ones(2, bool)])
def test_it_is_on_or_off(remat):
    with pytest.raises(InputError, match="remat=.* must be True or False$"):
        make_classifier("wrn-10-1", 10, remat=remat)


def test_registered_networks_recompute_what_they_want(monkeypatch, tmp_path):
    keep_registered(monkeypatch)
    register_model("mine", lambda num_classes, **common: make_classifier("wrn-10-1", num_classes))
    config = digits_at_rwp.get_config()
    config.model.name, config.remat = "mine", True
    message = (
        "^config.remat=True is for the package's own networks: 'mine' is registered.*remat=False"
    )
    with pytest.raises(InputError, match=message) as error:
        trainer.train(config, tmp_path / "run")
    assert "\n" not in str(error.value) and not (tmp_path / "run").exists()
