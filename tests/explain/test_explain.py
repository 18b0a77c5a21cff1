"""Pictures of runs of two epochs."""

import csv
import json
import shutil

import jax
import numpy as np
import pytest

from rwp_jax.configs import digits_at, digits_at_rwp
from rwp_jax.errors import InputError
from rwp_jax.explain import explain
from rwp_jax.explain import landscape as landscapes
from rwp_jax.explain.landscape import (
    adversarial_direction,
    landscape,
    random_direction,
    trained_gamma,
)
from rwp_jax.explain.probe import gate_losses, make_probe
from rwp_jax.report.side_by_side import compare
from rwp_jax.training import trainer
from rwp_jax.training.weight_perturbation import is_perturbed, perturbed_norm
from tests.small import shrink, write_two_classes

pytestmark = pytest.mark.usefixtures("one_device")


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    return write_two_classes(tmp_path_factory.mktemp("data") / "data.npz", 50, 20)


@pytest.fixture(scope="module")
def runs(npz, tmp_path_factory):
    """Trains a run with RWP and one without weight perturbation."""
    directory = tmp_path_factory.mktemp("runs")
    for name, module in (("rwp", digits_at_rwp), ("at", digits_at)):
        config = shrink(module.get_config(), **{"data.path": npz, "evaluation.train_examples": 0})
        trainer.train(config, directory / name)
    return directory


@pytest.fixture(scope="module")
def probe(runs):
    return make_probe(runs / "rwp", "last", examples=16)


@pytest.fixture
def few_points(monkeypatch):
    monkeypatch.setattr(landscapes, "RANDOM_DISTANCES", np.array([-0.5, 0.0, 0.5]))
    monkeypatch.setattr(landscapes, "RANDOM_DIRECTIONS", 2)
    monkeypatch.setattr(landscapes, "ADVERSARIAL_STEPS", 3)


def test_losses_are_those_of_attacked_training_images(probe, npz):
    losses = gate_losses(probe)
    images = np.load(npz)["x_train"][np.random.default_rng(0).permutation(50)[:16]]
    x_adv, loss = jax.jit(
        lambda w: (probe.attacked(w), probe.per_example(w, probe.attacked(w))[0])
    )(probe.params)
    assert np.abs(x_adv - images / 255).max() == pytest.approx(probe.config.threat.epsilon)
    np.testing.assert_allclose(losses, loss, rtol=1e-12)


def test_filters_of_a_random_direction_have_the_norms_of_the_networks(probe):
    direction = random_direction(jax.random.key(1), probe.params)
    for d, w in zip(*map(jax.tree.leaves, (direction, probe.params)), strict=True):
        if is_perturbed(w):
            norms = [np.linalg.norm(t.reshape(-1, t.shape[-1]), axis=0) for t in (d, w)]
            np.testing.assert_allclose(*norms, rtol=1e-9)
        else:
            assert not np.any(d), "biases and BN's vectors stay"


@pytest.mark.parametrize("name", ["awp", "rwp"])
def test_adversarial_directions_are_as_long_as_the_weights(name, probe):
    direction = adversarial_direction(probe, name)
    assert perturbed_norm(direction) == pytest.approx(perturbed_norm(probe.params))


def test_the_landscape_begins_at_the_loss_and_rises_along_adversarial_directions(probe, few_points):
    slices = landscape(probe)
    at_rest = gate_losses(probe).mean()
    assert slices["random"].losses.shape == (2, 3)
    np.testing.assert_allclose(slices["random"].losses[:, 1], at_rest, rtol=1e-9)
    for name in ("awp", "rwp"):
        losses = slices[name].losses[0]
        assert losses[0] == pytest.approx(at_rest) and losses[0] < losses[1] < losses[2]
    gamma = probe.config.weight_perturbation.gamma
    np.testing.assert_allclose(slices["rwp"].distances, [0, 2 * gamma, 4 * gamma])


def test_where_no_loss_is_below_c_min_rwp_has_no_direction(probe, few_points):
    config = probe.config.copy_and_resolve_references()
    config.weight_perturbation.c_min = 0.0
    assert adversarial_direction(probe._replace(config=config), "rwp") is None


def test_the_pictures_of_a_run_and_of_another_beside_it(runs, few_points, tmp_path, capsys):
    explain.explain(runs / "rwp", [runs / "at"], "last", 16)
    printed = capsys.readouterr().out
    assert "on 16 training images" in printed and "are below c_min = 1.7" in printed
    output = runs / "rwp/explain/last"
    pictures = {"losses.png", "gate.png", "landscape.png"}
    assert {path.name for path in output.glob("*.png")} == pictures
    assert set(json.loads((output / "pictures.json").read_text())) == pictures
    with (output / "landscape.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["run"] for row in rows} == {"rwp", "at"}
    assert len(rows) == 2 * (2 * 3 + 2 * 3)
    with (output / "losses.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 16
    assert (output / "report.html").read_text().count("<figure>") == 3

    compare([runs / "rwp", runs / "at"], tmp_path / "report")
    page = (tmp_path / "report/report.html").read_text()
    assert "rwp, last" in page and page.count("<figure>") == 5, (
        "curves, gate, and what was explained"
    )


def test_titles_name_the_checkpoint_and_its_epochs(probe):
    assert explain._checkpoint("last", [probe, probe]) == "last (epoch 2)"
    words = explain._checkpoint("best_by_validation", [probe, probe._replace(epoch=4)])
    assert words == "best by validation (epochs 2, 5)"


def test_gamma_is_that_of_training(probe):
    config = probe.config.copy_and_resolve_references()
    assert trained_gamma(probe) == config.weight_perturbation.gamma == 0.01
    config.weight_perturbation.name = "none"
    assert trained_gamma(probe._replace(config=config)) is None


def test_runs_of_older_versions_can_be_explained(runs, tmp_path):
    copy = tmp_path / "older"
    shutil.copytree(runs / "at", copy)
    config = json.loads((copy / "config.json").read_text())
    del config["evaluation"]["every"], config["data"]["train_examples"]
    (copy / "config.json").write_text(json.dumps(config))
    assert make_probe(copy, "last", 16).config.evaluation.every == 1


def test_a_run_that_perturbs_nothing_has_no_gate(runs, few_points, capsys):
    explain.explain(runs / "at", [], "best", 16)
    assert "at perturbs no weights: there is no gate to draw." in capsys.readouterr().out
    assert not (runs / "at/explain/best/gate.png").exists()


def test_bad_input_leaves_nothing(runs, npz, tmp_path):
    for directory, others, which, examples, message in (
        (tmp_path / "nowhere", [], "last", 0, "nowhere holds no run with metrics"),
        (
            runs / "at",
            [],
            "best_ema",
            0,
            "checkpoint=best_ema: the run in .* averaged no weights",
        ),
        (runs / "at", [], "first", 0, "checkpoint=first must be one of"),
        (runs / "at", [], "last", -1, "examples=-1 must be at least 1, or 0 for 256"),
        (runs / "at", [runs / "at"], "last", 0, "workdirs=: .*at is given twice"),
    ):
        with pytest.raises(InputError, match=message) as error:
            explain.explain(directory, others, which, examples)
        assert "\n" not in str(error.value)
    other = shrink(digits_at.get_config(), **{"data.path": npz, "threat.epsilon": 0.1, "epochs": 1})
    trainer.train(other, tmp_path / "other")
    with pytest.raises(InputError, match="other has config.threat.epsilon=0.1, .*at has 0.3"):
        explain.explain(runs / "at", [tmp_path / "other"], "last", 16)
    assert not (runs / "at/explain/last").exists()
