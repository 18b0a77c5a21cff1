"""A whole training without x64, as users run it, with activations in bfloat16."""

import jax
import pytest

from rwp_jax.configs import digits_at_rwp
from rwp_jax.runs.loaded import load_run
from rwp_jax.training import trainer
from tests.small import shrink, write_two_classes

pytestmark = pytest.mark.usefixtures("one_device")


@pytest.fixture
def without_x64():
    jax.config.update("jax_enable_x64", False)
    yield
    jax.config.update("jax_enable_x64", True)


def test_the_network_learns(tmp_path, without_x64):
    config = shrink(
        digits_at_rwp.get_config("full"),
        **{
            "data.path": write_two_classes(tmp_path / "data.npz", 64, 40),
            "dtype": "bfloat16",
            "epochs": 4,
            "evaluation.every": 4,
            "attack.steps": 1,
            "weight_perturbation.steps": 1,
            "threat.epsilon": 0.1,
        },
    )
    last = trainer.train(config, tmp_path / "run")["last"]
    assert last["natural_accuracy"] > 0.95 and last["pgd_accuracy"] > 0.7
    run = load_run(tmp_path / "run", "last")
    assert {leaf.dtype.name for leaf in jax.tree.leaves(run.params)} == {"float32"}
    accuracy = (run.predict(run.test_images).argmax(-1) == run.test_labels).mean()
    assert accuracy == pytest.approx(last["natural_accuracy"])
