"""Accuracy on corrupted images in the published file format."""

import json
import types

import numpy as np
import pytest

from rwp_jax.configs import digits_at_rwp
from rwp_jax.errors import InputError
from rwp_jax.evaluation.corruptions import (
    BENCHMARK,
    accuracies,
    evaluate_corruptions,
    means,
    read_corruptions,
    table,
)
from rwp_jax.runs.loaded import load_run
from rwp_jax.training import trainer
from tests.small import shrink, write_two_classes

pytestmark = pytest.mark.usefixtures("one_device")

COUNT = 12  # images per severity


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = write_two_classes(tmp_path_factory.mktemp("data") / "data.npz", 64, 24)
    directory = tmp_path_factory.mktemp("run") / "run"
    config = shrink(digits_at_rwp.get_config("full"), **{"data.path": path, "epochs": 1})
    trainer.train(config, directory)
    return directory


@pytest.fixture
def folder(tmp_path):
    """Writes two corruptions of dark and bright images: noise that grows with severity, and inversion."""
    rng = np.random.default_rng(0)
    y = np.tile(np.arange(COUNT) % 2, 5)
    clean = 60 + 120 * y[:, None, None, None] + np.zeros((5 * COUNT, 8, 8, 1))
    severity = np.repeat(np.arange(5), COUNT)[:, None, None, None]
    noisy = clean + rng.normal(0, 1, clean.shape) * 40 * severity
    np.save(tmp_path / "noise.npy", np.clip(noisy, 0, 255).astype(np.uint8))
    # The first images of a block are inverted, more of them at higher severity.
    place = np.tile(np.arange(COUNT), 5)[:, None, None, None]
    reversal = np.where(place < 2 * severity, 255 - clean, clean)
    np.save(tmp_path / "reversal.npy", reversal.astype(np.uint8))
    np.save(tmp_path / "labels.npy", y)
    return tmp_path


def verdicts(run, folder, name):
    images, labels = np.load(folder / f"{name}.npy"), np.load(folder / "labels.npy")
    return load_run(run, "last").predict(images).argmax(-1) == labels


def test_blocks_are_severities(run, folder, capsys):
    summary = evaluate_corruptions(run, "last", folder, 0)
    for name in ("noise", "reversal"):
        blocks = verdicts(run, folder, name).reshape(5, COUNT).sum(1)
        found = [entry["correct"] for entry in summary["severities"][name]]
        assert found == blocks.tolist()
    assert len(set(found)) > 1, "the severities differ"
    every = [e["accuracy"] for row in summary["severities"].values() for e in row]
    assert summary["mean_accuracy"] == {"mean of 2": pytest.approx(np.mean(every))}
    (path,) = (run / "evaluation" / "last").glob("corruptions_*.json")
    assert json.loads(path.read_text()) == json.loads(json.dumps(summary))
    assert "12 images of each corruption and severity" in capsys.readouterr().out


def test_the_first_of_each_severity(run, folder):
    summary = evaluate_corruptions(run, "last", folder, 5)
    right = verdicts(run, folder, "reversal").reshape(5, COUNT)
    found = [entry["correct"] for entry in summary["severities"]["reversal"]]
    assert found == right[:, :5].sum(1).tolist() != right[:, -5:].sum(1).tolist()
    assert list((run / "evaluation" / "last_5").glob("corruptions_*.json"))


def test_the_mean_of_the_benchmark_is_beside_that_of_all():
    entry = [{"accuracy": 1.0}] * 5
    found = dict.fromkeys(BENCHMARK, entry) | {"saturate": [{"accuracy": 0.0}] * 5}
    assert means(found) == {
        "mean of 16": [*BENCHMARK, "saturate"],
        "mean of the benchmark's 15": list(BENCHMARK),
    }
    assert "mean of the benchmark's 15      100.00" in table(found)


def test_the_table_has_a_line_a_corruption():
    entry = lambda value: {"accuracy": value}
    found = {"fog": [entry(0.5)] * 5, "snow": [entry(v) for v in (1, 0.75, 0.5, 0.25, 0)]}
    lines = [line.split() for line in table(found).splitlines()]
    assert lines[1] == ["fog", *["50.00"] * 6]
    assert lines[2] == ["snow", "100.00", "75.00", "50.00", "25.00", "0.00", "50.00"]
    assert lines[3] == ["mean", "of", "2", "75.00", "62.50", "50.00", "37.50", "25.00", "50.00"]


def _without(name):
    return lambda folder: (folder / f"{name}.npy").unlink()


def _with(name, array):
    return lambda folder: np.save(folder / f"{name}.npy", array)


def _as_npz(folder):
    np.savez(folder / "fog.npz", a=1)
    (folder / "fog.npz").rename(folder / "fog.npy")


@pytest.mark.parametrize(
    ("damage", "examples", "about"),
    [
        (_without("labels"), 0, "there is no labels.npy"),
        (_with("labels", np.zeros(COUNT)), 0, "labels.npy is float64"),
        (_with("labels", np.zeros(11, int)), 0, r"must be integers \[5 N\]"),
        (_with("labels", np.full(5 * COUNT, 2)), 0, "the network has 2 classes"),
        (_with("fog", np.zeros((5 * COUNT, 8, 8, 1))), 0, "fog.npy is float64"),
        (_with("fog", np.zeros((COUNT, 8, 8, 1), np.uint8)), 0, r"must be uint8 \[60, H, W, C\]"),
        (_with("fog", np.zeros((5 * COUNT, 8, 8, 3), np.uint8)), 0, "fog.npy has images 8x8x3"),
        (lambda folder: (folder / "fog.npy").write_text("no"), 0, "fog.npy cannot be read as .npy"),
        (_as_npz, 0, "fog.npy cannot be read as .npy .it is an .npz"),
        (
            _with("labels", np.full(5 * COUNT, 2**32, np.uint64)),
            0,
            "must have classes counted from 0",
        ),
        (_with("fog", np.array([{}])), 0, "fog.npy cannot be read as .npy"),
        (lambda folder: None, 13, r"examples=13 must be in \[0, 12\]"),
        (lambda folder: None, -1, "examples=-1 must be in"),
    ],
)
def test_refusals(run, folder, damage, examples, about):
    damage(folder)
    with pytest.raises(InputError, match=about):
        evaluate_corruptions(run, "last", folder, examples)


def test_an_empty_directory_is_refused(tmp_path):
    with pytest.raises(InputError, match="there is no labels.npy"):
        read_corruptions(tmp_path)
    with pytest.raises(InputError, match="is not a directory"):
        read_corruptions(tmp_path / "nowhere")


def test_logits_of_nan_are_no_prediction():
    nobody = types.SimpleNamespace(predict=lambda x: np.full((len(x), 10), np.nan))
    images, labels = np.zeros((10, 2, 2, 1), np.uint8), np.zeros(10, int)
    (found,) = accuracies(nobody, {"fog": images}, labels, 0).values()
    assert [entry["correct"] for entry in found] == [0] * 5
