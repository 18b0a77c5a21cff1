"""User-defined code that changes, moves, or is traced by another version of JAX between processes."""

import json
import shutil
import warnings

import jax
import numpy as np
import pytest

from rwp_jax.errors import InputError
from rwp_jax.evaluation import table2
from rwp_jax.models.classifier import MODELS
from rwp_jax.registry import Origin
from rwp_jax.runs.loaded import config_of, load_run
from rwp_jax.runs.network_record import NETWORK
from rwp_jax.training import trainer
from rwp_jax.training.objectives import OBJECTIVES
from tests.own_code import MODULE, forget

pytestmark = pytest.mark.usefixtures("one_device", "few_optimizations")


def test_a_network_that_computes_something_else_is_noticed(own, tmp_path, capsys, monkeypatch):
    """If only the computation changes, loading warns, verdicts are not mixed and training reports it."""
    shutil.copytree(own, tmp_path / "own")
    module = tmp_path / "own" / "tiny_network.py"
    record = tmp_path / "own" / "run" / NETWORK
    record.write_text(record.read_text().replace(str(own), str(tmp_path / "own")))
    run = tmp_path / "own" / "run"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = load_run(run).predict(np.zeros((1, 8, 8, 1), np.uint8))
    table2.evaluate(run, "best", "natural", 4, False)
    module.write_text(module.read_text().replace("nn.relu(", "nn.tanh("))
    forget(monkeypatch)
    with pytest.warns(UserWarning, match="'tiny' of .*tiny_network.py has changed since the run"):
        after = load_run(run).predict(np.zeros((1, 8, 8, 1), np.uint8))
    assert (before != after).any()
    with pytest.raises(InputError, match="is an evaluation of another network"):
        table2.evaluate(run, "best", "natural", 4, False)
    config = config_of(run)
    trainer.train(config, run)
    assert "the network's code has changed since the run began" in capsys.readouterr().out
    assert json.loads(record.read_text())["program"]["jax"] == jax.__version__


def test_a_module_that_moved_is_found_after_training_went_on(own, tmp_path, monkeypatch):
    shutil.copytree(own, tmp_path / "own")
    run, moved = tmp_path / "own" / "run", tmp_path / "moved" / "tiny_network.py"
    moved.parent.mkdir()
    (tmp_path / "own" / "tiny_network.py").rename(moved)
    record = run / NETWORK
    record.write_text(record.read_text().replace(str(own), str(tmp_path / "own")))
    begun = json.loads(record.read_text())["program"]
    forget(monkeypatch)
    with pytest.raises(InputError, match=r"there is no such file\); put the file back"):
        load_run(run)
    for registry, name in ((MODELS, "tiny"), (OBJECTIVES, "shifted")):
        registry.require(name, Origin("tiny_network", str(moved)), "here")
    trainer.train(config_of(run), run)
    assert json.loads(record.read_text())["program"] == begun
    forget(monkeypatch)
    assert load_run(run).num_classes == 2


def test_another_version_of_jax_does_not_make_it_another_network(own, tmp_path):
    """Verdicts stay valid after an upgrade, since another version may trace the same code differently."""
    shutil.copytree(own / "run", tmp_path / "run")
    record = tmp_path / "run" / NETWORK
    content = json.loads(record.read_text())
    content["program"] = {"sha256": "0" * 64, "jax": "0.9.0", "flax": "0.11.0"}
    record.write_text(json.dumps(content))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_run(tmp_path / "run").code == "0" * 64


def test_the_precision_of_a_process_is_no_part_of_the_network(own):
    with warnings.catch_warnings(), jax.default_matmul_precision("highest"):
        warnings.simplefilter("error")
        load_run(own / "run")


def test_a_module_that_has_changed_does_not_fit(own, tmp_path):
    shutil.copytree(own / "run", tmp_path / "run")
    elsewhere = tmp_path / "wider" / "tiny_network.py"
    elsewhere.parent.mkdir()
    elsewhere.write_text(MODULE.replace("nn.Conv(4", "nn.Conv(5"))
    path = tmp_path / "run" / NETWORK
    path.write_text(path.read_text().replace(str(own / "tiny_network.py"), str(elsewhere)))
    with pytest.raises(
        InputError, match="does not fit the network that is registered now: .*BatchNorm"
    ):
        load_run(tmp_path / "run")
    path.unlink()
    with pytest.raises(InputError, match="network.json is missing"):
        load_run(tmp_path / "run")


CONV = "x = nn.Conv(4, (3, 3))(x)\n"
ONE_MORE = (CONV, f"{CONV}        {CONV}")
ONE_LESS = ("nn.BatchNorm(use_running_average=not train, axis_name=self.axis_name)(x)", "x")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("nn.Conv(4", "nn.Conv(5"), r"is \(4,\) there, \(5,\) here"),
        (ONE_MORE, "params/Conv_1/bias is missing there"),
        (ONE_LESS, r"batch_stats/BatchNorm_0/mean is \(4,\) there, missing here"),
    ],
)
def test_training_does_not_go_on_with_a_network_of_other_shapes(
    change, message, own, tmp_path, monkeypatch
):
    """The refused training changes no file of the run."""
    shutil.copytree(own, tmp_path / "own")
    run, module = tmp_path / "own" / "run", tmp_path / "own" / "tiny_network.py"
    record = run / NETWORK
    record.write_text(record.read_text().replace(str(own), str(tmp_path / "own")))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    module.write_text(MODULE.replace(*change))
    assert module.read_text() != MODULE
    forget(monkeypatch)
    for registry, name in ((MODELS, "tiny"), (OBJECTIVES, "shifted")):
        registry.require(name, Origin("tiny_network", str(module)), "here")
    with pytest.raises(
        InputError, match=f"not fit the network that is registered now: .*{message}"
    ):
        trainer.train(config_of(run), run)
    after = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert after == before
