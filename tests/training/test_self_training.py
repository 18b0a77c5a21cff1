"""RST's two stages, in one run and as separate commands."""

import json
import shutil

import numpy as np
import pytest

from rwp_jax.configs import digits_rst_rwp
from rwp_jax.data import readers
from rwp_jax.errors import InputError
from rwp_jax.evaluation import pseudo_label
from rwp_jax.runs.metrics import read_metrics
from rwp_jax.training import self_training
from tests.small import shrink, write_two_classes

pytestmark = pytest.mark.usefixtures("one_device")


def small_config(path, **changes):
    stages = {
        "data.path": path,
        "data.labeled_examples": 20,
        "epoch_examples": 40,
        "self_training.epochs": 1,
        "weight_perturbation.start_epoch": 0,
        "evaluation.train_examples": 0,
    }
    return shrink(digits_rst_rwp.get_config(), **stages | changes)


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    return write_two_classes(tmp_path_factory.mktemp("data") / "data.npz", train=70, test=20)


@pytest.fixture(scope="module")
def finished(npz, tmp_path_factory):
    directory = tmp_path_factory.mktemp("run") / "run"
    return directory, self_training.train(small_config(npz), directory)


def test_both_stages_run_and_leave_their_results(finished):
    directory, summary = finished
    assert summary["last"]["epoch"] == 2
    teacher = read_metrics(directory / "teacher")
    assert [(r["step"], r["split"]) for r in teacher] == [(1, "train"), (1, "test")]  # 20 // 16
    assert {"loss", "clean_accuracy"} <= teacher[0].keys() and teacher[0]["perturbation_steps"] == 0
    student = read_metrics(directory)
    assert [r["step"] for r in student] == [3, 3, 6, 6]  # 40 / 16, rounded up
    assert {"natural_loss", "robust_loss", "robust_accuracy"} <= student[0].keys()
    images, labels = readers.read_extra(str(directory / "pseudo_labels.npz"))
    assert images.shape == (50, 8, 8, 1) and set(labels) <= {0, 1}


def test_given_again_it_is_left_as_it_is(finished, npz):
    directory, summary = finished
    before = read_metrics(directory), read_metrics(directory / "teacher")
    assert self_training.train(small_config(npz), directory) == summary
    assert before == (read_metrics(directory), read_metrics(directory / "teacher"))


def test_it_is_extended_once_its_first_stage_is_done(finished, npz, tmp_path):
    directory = tmp_path / "run"
    shutil.copytree(finished[0], directory)
    teacher = read_metrics(directory / "teacher")
    with pytest.raises(InputError, match="config.self_training.epochs=2 .was 1.: its extra images"):
        self_training.train(
            small_config(npz, epochs=3, **{"self_training.epochs": 2}), directory, extend=True
        )
    longer = small_config(npz, epochs=3, **{"optimizer.weight_decay": 0.0})
    labels = directory / "pseudo_labels.npz"
    labels.rename(tmp_path / "labels.npz")
    with pytest.raises(InputError, match="its first stage is not done: continue the run as it is"):
        self_training.train(longer, directory, extend=True)
    (tmp_path / "labels.npz").rename(labels)
    assert self_training.train(longer, directory, extend=True)["last"]["epoch"] == 3
    assert read_metrics(directory)[:4] == read_metrics(finished[0])
    assert read_metrics(directory / "teacher") == teacher


def test_pseudo_labels_by_hand_are_those_of_the_run(finished, npz, tmp_path, capsys):
    """The first stage's network labels the images left out by labeled_examples, or given images."""
    directory, _ = finished
    output = tmp_path / "p.npz"
    pseudo_label.pseudo_label(directory / "teacher", "", output, "last")
    assert "labelled 50 images" in capsys.readouterr().out
    with np.load(output) as ours, np.load(directory / "pseudo_labels.npz") as theirs:
        for name in ("data", "extrapolated_targets", "confidences"):
            np.testing.assert_array_equal(ours[name], theirs[name])
        assert (ours["confidences"] > 0.5).all() and (ours["confidences"] <= 1).all()
    with pytest.raises(InputError, match="already exists"):
        pseudo_label.pseudo_label(directory / "teacher", "", output, "last")

    np.savez(tmp_path / "u.npz", data=np.load(npz)["x_test"])
    pseudo_label.pseudo_label(directory, str(tmp_path / "u.npz"), tmp_path / "q.npz", "best")
    assert len(readers.read_extra(str(tmp_path / "q.npz"))[1]) == 20


def test_what_cannot_be_labelled(finished, tmp_path):
    directory, _ = finished
    np.savez(tmp_path / "u.npz", data=np.zeros((4, 8, 8, 3), np.uint8))
    for run, unlabeled, message in [
        (directory, str(tmp_path / "u.npz"), r"images are \(4, 8, 8, 3\), must have 1 channel"),
        (tmp_path, "", "holds no run"),
        (directory, str(tmp_path / "v.npz"), "is not a file"),
    ]:
        with pytest.raises(InputError, match=message):
            pseudo_label.pseudo_label(run, unlabeled, tmp_path / "p.npz", "last")
    (tmp_path / "config.json").write_text('{"dtype": "float32", "model": {}}')
    with pytest.raises(InputError, match="holds no run"):
        pseudo_label.pseudo_label(tmp_path, "", tmp_path / "p.npz", "last")
    with pytest.raises(InputError, match="checkpoint=newest must be one of best, best_by"):
        pseudo_label.pseudo_label(directory, "", tmp_path / "p.npz", "newest")
    with pytest.raises(InputError, match="there is no directory"):
        pseudo_label.pseudo_label(directory, "", tmp_path / "no" / "p.npz", "last")
    assert not (tmp_path / "p.npz").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.labeled_examples": 0}, "config.objective.name='rst' needs extra data"),
        (
            {"data.labeled_examples": 0, "objective.name": "trades"},
            "config.self_training.epochs=1 needs images to label",
        ),
        ({"objective.beta": -1.0}, "config.objective.beta"),
        ({"extra_data.use_labels": False}, "config.extra_data.use_labels=False discards the"),
        ({"batch_size": 48}, "config.batch_size=48 is larger than the training set of 20 images"),
        ({"self_training.epochs": -1}, "config.self_training.epochs=-1"),
    ],
)
def test_refusals_come_before_the_first_stage(npz, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        self_training.train(small_config(npz, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_extra_data_from_a_file(finished, npz, tmp_path):
    """Pseudo-labels of a class that the data set lacks and images of another size are refused."""
    directory, _ = finished
    for images, labels, message in [
        (np.zeros((4, 8, 8, 1), np.uint8), np.full(4, 2), "has pseudo-label 2, .* labels up to 1"),
        (np.zeros((4, 9, 8, 1), np.uint8), np.zeros(4, int), r"images are \(9, 8, 1\)"),
    ]:
        np.savez(tmp_path / "p.npz", data=images, extrapolated_targets=labels)
        changes = {"extra_data.path": str(tmp_path / "p.npz"), "self_training.epochs": 0}
        with pytest.raises(InputError, match=message):
            self_training.train(small_config(npz, **changes), tmp_path / "run")
    config = json.loads((directory / "config.json").read_text())
    assert config["extra_data"]["path"] == "", "the run's own pseudo-labels move with its directory"
