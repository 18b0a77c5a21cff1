"""A run of version 0.1.0, stopped in its second epoch by SIGTERM, and how that version finished it.

Recorded on one CPU device at 2d14447 by

    python main.py --config configs/digits_at_rwp.py --config.epoch_examples=128 --config.attack.steps=2 \\
        --config.evaluation.steps=2 --config.evaluation.train_examples=0 --config.epochs=3 \\
        --config.batch_size=32 --config.evaluation.batch_size=40 --config.weight_perturbation.steps=2 \\
        --config.weight_perturbation.c_min=2.6
"""

import json
import pathlib
import shutil

import pytest

from rwp_jax.configs import default, digits_at_rwp
from rwp_jax.errors import InputError
from rwp_jax.evaluation import table2
from rwp_jax.runs import history
from rwp_jax.runs.config import completed, differences, flatten
from rwp_jax.runs.loaded import load_run
from rwp_jax.runs.metrics import read_metrics
from rwp_jax.training.self_training import train

pytestmark = pytest.mark.usefixtures("one_device")

RECORDED = pathlib.Path(__file__).parents[1] / "fixtures" / "run_0.1.0"
CHANGES = {
    "epoch_examples": 128,
    "attack.steps": 2,
    "evaluation.steps": 2,
    "evaluation.train_examples": 0,
    "epochs": 3,
    "batch_size": 32,
    "evaluation.batch_size": 40,
    "weight_perturbation.steps": 2,
    "weight_perturbation.c_min": 2.6,
}


@pytest.fixture
def run(tmp_path):
    return pathlib.Path(shutil.copytree(RECORDED / "run", tmp_path / "run"))


def test_keys_that_it_lacks_count_as_what_it_did():
    """A new key whose default is not off needs an entry in `config._LATER`."""
    held = json.loads((RECORDED / "run/config.json").read_text())
    filled = completed(held)
    assert flatten(filled).keys() == flatten(default.get_config().to_dict()).keys()
    assert differences(flatten(held), flatten(filled)) == []


def test_it_is_evaluated_and_loaded(run):
    loaded = load_run(run, "best")
    predicted = loaded.predict(loaded.test_images).argmax(-1)
    assert loaded.epoch == 0 and len(predicted) == 360
    assert (predicted == loaded.test_labels).mean() == pytest.approx(0.15, abs=2 / 360)
    table2.evaluate(run, "best", "natural", 0, False)
    evaluation = json.loads((run / "evaluation/best/evaluation.json").read_text())
    assert evaluation["columns"]["natural"]["accuracy"] == pytest.approx(0.15, abs=2 / 360)


def test_it_is_extended(run):
    """The change is recorded; the epoch in progress is finished as it began."""
    config = digits_at_rwp.get_config("full")
    config.update_from_flattened_dict(CHANGES | {"epochs": 4, "optimizer.weight_decay": 0.0})
    with pytest.raises(InputError, match="with these changes by extend=$"):
        train(config, run)
    train(config, run, extend=True)
    assert [r["step"] for r in read_metrics(run) if r["split"] == "train"] == [4, 8, 12, 16]
    held, past = history.read(run)
    (change,) = past.changes
    assert (change.after_epochs, change.after_steps) == (2, 8)
    assert change.keys == {"epochs": [3, 4], "optimizer.weight_decay": [5e-4, 0.0]}
    before = json.loads((RECORDED / "run/config.json").read_text())
    assert past.config_at(flatten(held), 1) == flatten(before), "nothing else is written"


def test_it_goes_on_as_that_version_did(run):
    """Tolerances allow for eight devices here instead of one, since sums round differently."""
    config = digits_at_rwp.get_config("full")
    config.update_from_flattened_dict(CHANGES)
    train(config, run)
    ours = read_metrics(run)
    (run.parent / "recorded").mkdir()
    shutil.copy(RECORDED / "finished.jsonl", run.parent / "recorded" / "metrics.jsonl")
    theirs = read_metrics(run.parent / "recorded")
    for mine, recorded in zip(ours, theirs, strict=True):
        assert mine.keys() == recorded.keys()
        for name, value in recorded.items():
            if not isinstance(value, str):
                value = pytest.approx(value, rel=1e-3, abs=0.02 if "accuracy" in name else 0)
            assert mine[name] == value, name
