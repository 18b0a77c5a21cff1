"""What --mode inspect says of runs, sound and damaged."""

import json
import shutil

import jax
import numpy as np
import pytest

from rwp_jax.configs import digits_at_rwp
from rwp_jax.runs import history
from rwp_jax.runs.checkpoint import Checkpoints
from rwp_jax.runs.history import Change, History
from tests.inspection.said import refused, said, unsound
from tests.small import shrink, train_on_two_classes, write_two_classes

pytestmark = pytest.mark.usefixtures("one_device")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return train_on_two_classes(tmp_path_factory, 20)


@pytest.fixture
def run(trained, tmp_path):
    """Returns a copy of a run that may be damaged."""
    return shutil.copytree(trained, tmp_path / "run")


def test_a_run(run, capsys):
    out = said(run, capsys)
    for text in (
        "wrn-10-1, 2 classes, images 8x8x1",
        "2 of 2 epochs (step 8), finished",
        "at, weight perturbation rwp (gamma 0.01)",
        "l_inf, ε = 0.2",
        "64 train and 20 test images 8x8x1, 2 classes, digest of x_train",
        "step 4, step 8",
        "rwp-jax ",
        f"--mode evaluate --workdir {run}",
        f"--mode export_torch --workdir {run}",
    ):
        assert text in out
    assert "--config FILE --workdir" not in out


def test_a_network_of_the_users_own_is_not_exported(run, capsys):
    record = json.loads((run / "network.json").read_text())
    record["model"] = {"module": "mine", "file": "mine.py"}
    (run / "network.json").write_text(json.dumps(record))
    out = said(run, capsys)
    assert "--mode evaluate" in out and "--mode export_torch" not in out


def test_differences_from_a_config(run, capsys):
    config = digits_at_rwp.get_config("full")
    held = json.loads((run / "config.json").read_text())
    out = said(run, capsys, config=config)
    assert f"epochs: 2 in the run, {config.epochs} in --config" in out
    assert f"data.path: {held['data']['path']!r} in the run, '' in --config" in out
    assert "optimizer.momentum" not in out
    config.update_from_flattened_dict({"epochs": 2})
    own = type(config)(held)
    assert "no key differs" in said(run, capsys, config=own)


def test_an_unfinished_run_says_how_it_continues(run, capsys):
    checkpoints = Checkpoints(run)
    newest = checkpoints.newest()["step"]
    for path in (checkpoints.path(newest), run / "checkpoints" / f"{newest}.json"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (run / "summary.json").unlink()
    out = said(run, capsys)
    assert "1 of 2 epochs (step 4)\n" in out and "not stated before training ends" in out
    assert f"--config FILE --workdir {run}  (continues" in out


def test_the_history_of_a_run(run, capsys, tmp_path):
    held, _ = history.read(run)
    changes = [Change(1, 4, {"seed": [3, 0]}, "0.1.0"), Change(1, 4, {"epochs": [1, 2]}, "0.1.0")]
    begun = {"source": "runs/a", "checkpoint": "best", "digest": "0a1b"}
    history.write(run, held, History(tuple(changes), begun))
    out = said(run, capsys)
    assert "began with    weights of runs/a best, digest 0a1b\n" in out
    assert "changed       from epoch 2 on config.seed=0 (was 3)\n" in out
    assert "\n                from epoch 2 on config.epochs=2 (was 1)\n" in out

    begins, checkpoints = tmp_path / "begins", Checkpoints(run)
    state = checkpoints.load(checkpoints.newest())
    begins.mkdir()
    history.write(begins, held, History(init_from=begun))
    checkpoints = Checkpoints(begins)
    state = jax.tree.map(jax.numpy.asarray, state)
    checkpoints.save(state, {"step": 0, "epoch": -1, "within_epoch": {}, "metrics": []})
    checkpoints.close()
    out = said(begins, capsys)
    assert "0 of 2 epochs, only the weights that it begins with are saved\n" in out
    assert "(continues; FILE: the run's config)" in out


def test_damages_of_a_run(run, capsys):
    data = max(
        (run / "checkpoints" / "8").rglob("*"), key=lambda p: p.is_file() and p.stat().st_size
    )
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 8
    data.write_bytes(content)
    out = unsound(run, capsys, f"checkpoint {run.resolve() / 'checkpoints' / '8'} is damaged")
    assert "step 4, step 8 (damaged)" in out and "epoch 1, natural" in out
    (run / "checkpoints" / "4.json").write_text("{}")
    out = unsound(run, capsys, "is damaged")
    assert "unsound: " in out and "4.json is damaged (its digest differs)" in out
    assert "--mode evaluate" not in out


def test_other_damages_of_a_run(run, capsys):
    (run / "network.json").write_text("{")
    assert "network.json cannot be read" in unsound(run, capsys, "network.json")
    (run / "network.json").unlink()
    assert "wrn-10-1, 2 classes, images ?x?x1" in said(run, capsys)
    lines = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text("\n".join([lines[0], "{", *lines[1:]]))
    unsound(run, capsys, "metrics.jsonl: line 2 of")
    (run / "config.json").write_text("{")
    refused(run, "holds no run: its config.json cannot be read")


def test_data_that_moved_or_changed(run, capsys, tmp_path):
    config = json.loads((run / "config.json").read_text())
    config["data"]["path"] = str(tmp_path / "gone.npz")
    (run / "config.json").write_text(json.dumps(config))
    assert "gone.npz (not there now: give --config.data.path)" in said(run, capsys)
    write_two_classes(tmp_path / "gone.npz", 60, 20)
    unsound(run, capsys, "the run: its data have changed since training (x_test, x_train, y_train)")


def test_weights_of_a_run_that_are_not_finite(tmp_path, capsys):
    config = shrink(digits_at_rwp.get_config(), **{"data.name": "digits", "epochs": 1})
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(config.to_json())
    state = {"params": {"w": np.array([1.0, np.inf])}, "step": np.int32(1)}
    checkpoints = Checkpoints(tmp_path / "run")
    checkpoints.save(jax.tree.map(jax.numpy.asarray, state), {"step": 1, "epoch": 0})
    checkpoints.close()
    unsound(tmp_path / "run", capsys, "params/w has entries that are not finite")


def test_directories_of_runs(run):
    refused(run.parent, "holds runs (run): inspect one, such as")
    refused(run / "checkpoints", f"holds the checkpoints of the run {run}: inspect that")


def test_a_checkpoint_of_a_run(run, capsys):
    out = said(run / "checkpoints" / "8", capsys)
    assert (
        "wrn-10-1, 2 classes, images of 1 channel\n" in out and f"part of    the run {run}" in out
    )
