"""The examples run, and the networks that they train are somewhat robust."""

import importlib.util
import json
import pathlib
import sys

import matplotlib.pyplot
import pytest

import rwp_jax
from rwp_jax.attacks.autoattack import Square
from rwp_jax.command_line.config_file import load_config
from rwp_jax.models.classifier import MODELS
from rwp_jax.training.objectives import OBJECTIVES

pytestmark = pytest.mark.usefixtures("one_device")

EXAMPLES = pathlib.Path(rwp_jax.__file__).parents[1] / "examples"


def load(name: str):
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_network_and_an_objective_of_ones_own(tmp_path, monkeypatch):
    for registry in (MODELS, OBJECTIVES):
        monkeypatch.setattr(registry, "_builders", dict(registry._builders))
        monkeypatch.setattr(registry, "_origins", dict(registry._origins))
    monkeypatch.setattr(sys, "path", [*sys.path])
    config = load_config(str(EXAMPLES / "my_network.py"))
    config.epochs, config.epoch_examples, config.dtype = 2, 256, "float32"
    summary = rwp_jax.train(config, tmp_path / "run")
    run = rwp_jax.load_run(tmp_path / "run", "last")
    correct = run.predict(run.test_images).argmax(-1) == run.test_labels
    assert (
        correct.mean() == pytest.approx(summary["last"]["natural_accuracy"])
        and correct.mean() > 0.15
    )


@pytest.mark.parametrize("name", ["rwp_linen", "awp_nnx", "rwp_plain"])
def test_a_loop_of_ones_own(name, capsys):
    accuracy = load(name).main(epochs=4)
    assert accuracy > 0.2
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5 and "PGD-20" in lines[-1]
    taken = [int(line.split()[4]) for line in lines[:-1]]
    assert set(taken) == {1} if name == "awp_nnx" else max(taken) > 1


@pytest.mark.filterwarnings("ignore::rwp_jax.attacks.autoattack.AutoAttackWarning")
def test_a_masked_gradient(capsys):
    attacks = ["apgd-ce", Square(queries=50)]
    plain, overrated, adaptive = (
        load("masked_gradients").main(images=40, version="custom", attacks=attacks).values()
    )
    assert plain < overrated and abs(adaptive - plain) <= 1
    assert "with it, adaptive: " in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore::rwp_jax.attacks.autoattack.AutoAttackWarning")
def test_autoattack_on_linen_nnx_and_a_plain_function(capsys):
    attack = {"version": "custom", "attacks": rwp_jax.ApgdCE(steps=10)}
    accuracies = load("autoattack_own_model").main(40, **attack)
    assert list(accuracies) == ["linen", "NNX", "plain"]
    assert all(clean > 0.8 and robust < clean - 0.1 for clean, robust in accuracies.values())
    out = capsys.readouterr().out
    assert out.count("clean") == 3 and "training mode" not in out


def test_a_checkpoint_of_pytorch(capsys):
    robust = load("import_torch_checkpoint").main(
        40, version="custom", attacks=rwp_jax.ApgdCE(steps=10)
    )
    assert 10 < robust < 60
    assert "largest difference of a logit: 0.0\n" in capsys.readouterr().out


def test_the_tour(capsys):
    """The code cells of the notebook run in order."""
    matplotlib.use("agg")
    cells = json.loads((EXAMPLES / "tour.ipynb").read_text())["cells"]
    space: dict = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), space)
    clean, robust = (float(line.split()[-1]) for line in capsys.readouterr().out.splitlines()[-2:])
    assert clean > 0.85 and robust > 0.6
    matplotlib.pyplot.close("all")
