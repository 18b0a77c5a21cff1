"""Runs with user-defined networks and objectives: training, resuming, evaluation, loading elsewhere."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from rwp_jax.command_line.config_file import load_config
from rwp_jax.configs import digits_at_rwp
from rwp_jax.errors import InputError
from rwp_jax.evaluation import pseudo_label, table2
from rwp_jax.models.classifier import MODELS, register_model
from rwp_jax.pytorch.export import export_torch
from rwp_jax.runs.history import read
from rwp_jax.runs.initial_weights import weights_of_run
from rwp_jax.runs.loaded import load_run
from rwp_jax.runs.network_record import NETWORK
from rwp_jax.training import trainer
from rwp_jax.training.fine_tuning import check_fit
from tests.own_code import keep_registered
from tests.small import shrink, write_two_classes

pytestmark = pytest.mark.usefixtures("one_device", "few_optimizations")


def test_a_run_remembers_whose_code_its_network_is(own):
    content = json.loads((own / "run" / NETWORK).read_text())
    assert content.pop("program").keys() == {"sha256", "jax", "flax"}
    origin = {"module": "tiny_network", "file": str(own / "tiny_network.py")}
    assert content == {
        "image_shape": [8, 8, 1],
        "num_classes": 2,
        "model": origin,
        "objective": origin,
    }


def test_loaded_evaluated_and_labelled_from_the_file_that_registers(own):
    assert "tiny" not in MODELS
    run = load_run(own / "run", "last")
    assert run.classifier and run.num_classes == 2 and run.image_shape == (8, 8, 1)
    logits = run.predict(run.test_images)
    accuracy = (logits.argmax(-1) == run.test_labels).mean()
    table2.evaluate(own / "run", "last", "natural", 0, False)
    evaluation = json.loads((own / "run/evaluation/last/evaluation.json").read_text())
    assert evaluation["columns"]["natural"]["accuracy"] == accuracy
    with np.load(own / "two.npz") as data:
        np.savez(own / "u.npz", data=data["x_test"])
    (own / "p.npz").unlink(missing_ok=True)
    pseudo_label.pseudo_label(own / "run", str(own / "u.npz"), own / "p.npz", "last")
    with np.load(own / "p.npz") as labelled:
        assert (labelled["extrapolated_targets"] == logits.argmax(-1)).all()


def test_its_weights_begin_other_runs(own):
    """The head of a user-defined network is whatever depends on the number of classes."""
    config, weights = load_run(own / "run", "last").config, weights_of_run(own / "run")
    assert check_fit(config, weights, 2, (8, 8, 1)) == []
    assert check_fit(config, weights, 3, (8, 8, 1)) == ["Dense_0/bias", "Dense_0/kernel"]
    with pytest.raises(InputError, match=r"Dense_0/kernel is \[256, 2\] there, \[324, 2\] here"):
        check_fit(config, weights, 2, (9, 9, 1))


def test_it_is_extended_without_the_objective(own, tmp_path):
    """The objective's own setting disappears from the config, but not from that of earlier epochs."""
    run = load_run(own / "run", "last")
    shutil.copytree(own / "run", tmp_path / "run")
    changes = {"data.path": str(own / "two.npz"), "model.name": "tiny", "epochs": 3}
    trainer.train(
        shrink(digits_at_rwp.get_config("full"), **changes), tmp_path / "run", extend=True
    )
    (change,) = read(tmp_path / "run")[1].changes
    assert change.keys["objective.shift"] == [0.25, None]
    assert "shift" not in load_run(tmp_path / "run", "last").config.objective
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "9")
    for path in (tmp_path / "run" / "checkpoints" / "9.json", tmp_path / "run" / "summary.json"):
        path.unlink()
    assert load_run(tmp_path / "run", "last").config.objective == run.config.objective


def test_a_process_that_knows_nothing_of_it_loads_it(own):
    code = f"""
import jax
jax.config.update("jax_enable_x64", True)
import rwp_jax
run = rwp_jax.load_run({str(own / "run")!r})
print(run.predict(run.test_images).shape)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "(20, 2)\n" and "has changed" not in result.stderr, result.stderr


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (
            None,
            "its model 'tiny' is registered by .*tiny_network.py, which cannot .*put the file back",
        ),
        (
            "import nothing_here",
            "cannot be imported .ModuleNotFoundError: No module named 'nothing_here'",
        ),
        ("", "which no longer registers it"),
    ],
)
def test_what_is_missing_is_said(own, tmp_path, module, message):
    shutil.copytree(own / "run", tmp_path / "run")
    path = tmp_path / "run" / NETWORK
    elsewhere = str(tmp_path / "gone" / "tiny_network.py")
    path.write_text(path.read_text().replace(str(own / "tiny_network.py"), elsewhere))
    if module is not None:
        (tmp_path / "gone").mkdir()
        (tmp_path / "gone" / "tiny_network.py").write_text(module)
    with pytest.raises(InputError, match=message):
        load_run(tmp_path / "run")


def test_a_script_is_not_run_to_load(own, tmp_path):
    shutil.copytree(own / "run", tmp_path / "run")
    path = tmp_path / "run" / NETWORK
    path.write_text(path.read_text().replace('"tiny_network"', '"__main__"'))
    with pytest.raises(InputError, match="a script: call rwp_jax.register_model first"):
        load_run(tmp_path / "run")
    path.write_text("{")
    with pytest.raises(InputError, match="network.json cannot be read"):
        load_run(tmp_path / "run")


def test_a_network_of_ones_own_has_no_names_in_pytorch(own, tmp_path):
    with pytest.raises(
        InputError, match="config.model.name='tiny' is registered: only the package's"
    ):
        export_torch(own / "run", "last", tmp_path / "x.safetensors", None, False)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            np.zeros((2, 8, 8, 3), np.uint8),
            r"images= have shape \(2, 8, 8, 3\), must be \[N, 8, 8, 1\]",
        ),
        (np.zeros((8, 8, 1), np.uint8), r"must be \[N, 8, 8, 1\]"),
        (np.zeros((2, 16, 16, 1), np.uint8), r"must be \[N, 8, 8, 1\]"),
        (np.full((2, 8, 8, 1), 255.0), r"images= have pixels outside \[0, 1\]"),
        (np.full((2, 8, 8, 1), np.nan), r"images= must have pixels in \[0, 1\], some are NaN"),
        (np.zeros((2, 8, 8, 1), int), "images= are int64, must be uint8, or floating-point"),
    ],
)
def test_predict_names_what_is_wrong_with_images(own, images, message):
    with pytest.raises(InputError, match=message):
        load_run(own / "run").predict(images)


def test_predict_takes_bytes_and_floats_and_none(own):
    run = load_run(own / "run")
    images = run.test_images
    np.testing.assert_allclose(run.predict(images / 255), run.predict(images), rtol=1e-12)
    assert run.predict(images[:0]).shape == (0, 2)


def own_config(directory, name, layers):
    """Writes a config that registers the network `name` and imports a module next to it."""
    directory.mkdir()
    (directory / f"{name}_layers.py").write_text(f"LAYERS = {layers}")
    (directory / "config.py").write_text(
        f"""
import flax.linen as nn
import rwp_jax
from {name}_layers import LAYERS
from rwp_jax.command_line.config_file import load_config
from rwp_jax.configs import digits_at_rwp

class Net(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, x, train):
        x = x.reshape(len(x), -1)
        for _ in range(LAYERS):
            x = nn.relu(nn.Dense(8)(x))
        return nn.Dense(self.num_classes)(x)

rwp_jax.register_model({name!r}, rwp_jax.from_linen(Net))

def get_config():
    config = digits_at_rwp.get_config("full")
    config.model.name = {name!r}
    return config
"""
    )
    return directory / "config.py"


def test_two_configs_with_modules_beside_them_in_one_process(tmp_path, monkeypatch):
    """Both config files are named config.py."""
    keep_registered(monkeypatch)
    monkeypatch.setattr(sys, "path", [*sys.path])
    data = write_two_classes(tmp_path / "two.npz", 48, 20)
    for name, layers in (("shallow", 1), ("deep", 2)):
        config = load_config(str(own_config(tmp_path / name, name, layers)))
        trainer.train(
            shrink(config, **{"data.path": data, "model.name": name}), tmp_path / name / "run"
        )
    # As in a process that has not loaded the configs.
    for module in [name for name in sys.modules if name.startswith("config_")]:
        monkeypatch.delitem(sys.modules, module)
    for name in ("shallow", "deep"):
        monkeypatch.delitem(MODELS._builders, name)
        monkeypatch.delitem(MODELS._origins, name)
    sizes = [len(load_run(tmp_path / name / "run", "last").params) for name in ("shallow", "deep")]
    assert sizes == [2, 3]


def test_another_network_of_the_name_is_not_taken_for_it(own, tmp_path):
    register_model("tiny", lambda num_classes, **_: None)
    with pytest.raises(
        InputError, match="and here by .*test_network.py: load it in a separate process"
    ):
        load_run(own / "run")
