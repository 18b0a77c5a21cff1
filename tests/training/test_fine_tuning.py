"""Runs that begin with given weights: those of a run, of a file or of the zoo."""

import json
import shutil

import jax
import numpy as np
import pytest

from rwp_jax.configs import digits_at, digits_at_rwp
from rwp_jax.errors import InputError
from rwp_jax.pytorch import export
from rwp_jax.pytorch.initial import initial_weights
from rwp_jax.runs import history
from rwp_jax.runs.checkpoint import Checkpoints
from rwp_jax.runs.initial_weights import weights_of_run
from rwp_jax.runs.loaded import load_run
from rwp_jax.training import experiment, fine_tuning, trainer
from rwp_jax.training.self_training import train
from tests.small import building_once, write_two_classes
from tests.training.test_trainer import assert_same_run, small_config

pytestmark = pytest.mark.usefixtures("one_device")


@pytest.fixture(scope="module", autouse=True)
def compiled_once():
    with building_once():
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Returns the paths of images of two classes, of three classes, and of two in colour."""
    root = tmp_path_factory.mktemp("data")
    two = write_two_classes(root / "two.npz", train=50, test=20)
    arrays = dict(np.load(two))
    three = arrays | {name: np.arange(len(arrays[name])) % 3 for name in ("y_train", "y_test")}
    np.savez(root / "three.npz", **three)
    colour = {name: np.repeat(arrays[name], 3, -1) for name in ("x_train", "x_test")}
    np.savez(root / "colour.npz", **arrays | colour)
    return {path.stem: str(path) for path in root.iterdir()}


@pytest.fixture(scope="module")
def source(data, tmp_path_factory):
    directory = tmp_path_factory.mktemp("source") / "run"
    trainer.train(small_config(**{"data.path": data["two"], "epochs": 1}), directory)
    return directory


@pytest.fixture(scope="module")
def three(data):
    return lambda **changes: small_config(**{"data.path": data["three"], "epochs": 1} | changes)


def leaves_of(tree):
    return {jax.tree_util.keystr(p): v for p, v in jax.tree_util.tree_leaves_with_path(tree)}


@pytest.fixture(scope="module")
def tuned(source, three, tmp_path_factory):
    """Returns a run on three classes that began with the weights of one on two."""
    directory = tmp_path_factory.mktemp("tuned") / "run"
    trainer.train(three(), directory, init_from=weights_of_run(source))
    return directory


def test_the_first_state_has_the_weights_and_nothing_else(source, tuned, three):
    checkpoints = Checkpoints(tuned)
    (first,) = (record for record in checkpoints.records() if record["step"] == 0)
    state, given = checkpoints.load(first), load_run(source, "last").saved
    heads = {}
    for collection in ("params", "batch_stats"):
        mine, theirs = leaves_of(state[collection]), leaves_of(given[collection])
        assert mine.keys() == theirs.keys()
        for name, value in mine.items():
            if "linear" in name:
                heads[name] = value
            else:
                np.testing.assert_array_equal(value, theirs[name])
    drawn = experiment.build(three(), 3, steps_per_epoch=3).recipe.classifier.init(
        jax.random.split(jax.random.key(0), 3)[0], (8, 8, 1)
    )[0]
    assert len(heads) == 2
    for name, value in leaves_of({"linear": drawn["linear"]}).items():
        np.testing.assert_array_equal(heads[name], value)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(state["opt_state"]))
    assert state["step"] == 0


def test_the_run_records_what_it_began_with(source, tuned, three):
    begun = history.read(tuned)[1].init_from
    weights = weights_of_run(source, "best")  # the only epoch, so equal to the last
    assert begun["source"] == str(source) and begun["checkpoint"] == "last"
    assert begun["digest"] == weights.digest()
    assert load_run(tuned, "last").history.init_from == begun
    assert trainer.train(three(), tuned)["last"]["epoch"] == 1
    assert trainer.train(three(), tuned, init_from=weights)["last"]["epoch"] == 1


def test_it_resumes_without_the_weights(source, tuned, three, tmp_path, monkeypatch, capsys):
    """The run is killed before its first epoch ends, and the source is gone."""
    copy, directory = tmp_path / "source", tmp_path / "run"
    shutil.copytree(source, copy)

    def dies(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(trainer.MetricsWriter, "write", dies)
        with pytest.raises(KeyboardInterrupt):
            trainer.train(three(), directory, init_from=weights_of_run(copy))
    said = capsys.readouterr().out
    assert (
        f"beginning with the weights of {copy} last\n{copy} has 2 classes, the data have 3" in said
    )
    assert "linear/bias and linear/kernel are drawn from config.seed" in said
    shutil.rmtree(copy)
    trainer.train(three(), directory)
    assert_same_run(directory, tuned)


def test_other_weights_are_refused_when_it_resumes(source, tuned, three, data, tmp_path):
    weights = weights_of_run(source)
    other = weights._replace(params=jax.tree.map(lambda w: w + 1, weights.params), source="other")
    with pytest.raises(InputError, match="init_from=other has other weights than .* had when"):
        trainer.train(three(), tuned, init_from=other)
    began = small_config(**{"data.path": data["two"], "epochs": 1})
    with pytest.raises(InputError, match="init_from=.* began with drawn weights; leave init_from="):
        trainer.train(began, source, init_from=weights)
    directory = tmp_path / "run"  # killed before its first weights were saved
    history.write(directory.mkdir() or directory, *history.read(tuned))
    with pytest.raises(InputError, match="stopped before it saved .* give init_from=.* again"):
        trainer.train(three(), directory)
    with pytest.raises(
        InputError, match="init_from= is a str, must be from rwp_jax.initial_weights"
    ):
        train(three(), tmp_path / "new", init_from=str(source))
    assert not (tmp_path / "new").exists()


def test_what_does_not_fit_is_named(source, data, tmp_path):
    weights, directory = weights_of_run(source), tmp_path / "run"
    broken = jax.tree.map(np.copy, weights.params)
    broken["conv1"]["kernel"][0] = np.nan
    lacking = weights._replace(batch_stats={})
    for given, changes, message in [
        (
            weights,
            {"model.name": "wrn-16-1"},
            "'wrn-16-1' and the data: block1_1/bn1/bias is missing",
        ),
        (weights, {"model.name": "wrn-10-2"}, r"block1_0/bn2/bias is \[16\] there, \[32\] here"),
        (
            weights,
            {"data.path": data["colour"]},
            r"conv1/kernel is \[3, 3, 1, 16\] there, \[3, 3, 3",
        ),
        (lacking, {}, "block1_0/bn1/mean is missing there"),
        (weights._replace(params=broken), {}, "conv1/kernel has entries that are not finite"),
        (weights._replace(params=broken | {"extra": np.ones(2)}), {}, "conv1/kernel has entries"),
        (
            weights._replace(params=weights.params | {"extra": np.ones(2)}),
            {},
            r"extra is \[2\] there, missing here",
        ),
    ]:
        config = small_config(**{"data.path": data["two"]} | changes)
        with pytest.raises(InputError, match=message) as error:
            trainer.train(config, directory, init_from=given)
        assert "\n" not in str(error.value) and not directory.exists()


def test_the_average_begins_with_the_weights(source, data):
    config = small_config(**{"data.path": data["two"], "ema_decay": 0.9})
    recipe = experiment.build(config, 2, steps_per_epoch=3).recipe
    state = trainer.init_state(recipe, jax.random.key(1), (8, 8, 1))
    loaded = trainer.training_data.load_data(config)
    begun = fine_tuning.begun_with(config, weights_of_run(source), state, loaded)
    for average, weight in zip(
        *map(jax.tree.leaves, (begun.ema.params, begun.params)), strict=True
    ):
        np.testing.assert_array_equal(average, weight)
        assert average is not weight, "a step may reuse the buffers of its input"


def test_another_normalisation_or_activation_is_mentioned(source, data, capsys):
    other = {"model.mean": (0.5,), "model.std": (0.25,), "model.activation": "silu"}
    config = small_config(**{"data.path": data["two"]} | other)
    recipe = experiment.build(config, 2, steps_per_epoch=3).recipe
    state = trainer.init_state(recipe, jax.random.key(1), (8, 8, 1))
    loaded = trainer.training_data.load_data(config)
    fine_tuning.begun_with(config, weights_of_run(source), state, loaded)
    said = capsys.readouterr().out
    assert (
        "normalises pixels by mean () and deviation (), this run by config.model.mean=(0.5,)"
        in said
    )
    assert "has config.model.activation='', this run 'silu'" in said


@pytest.mark.parametrize("name", ["net.pth", "net.safetensors", "net.npz"])
def test_a_file_of_pytorch_has_the_same_weights(name, source, data, tmp_path):
    pytest.importorskip("torch")
    path = tmp_path / name
    if name == "net.npz":
        np.savez(path, **export.own_entries(load_run(source, "last")))
    else:
        export.export_torch(source, "last", path)
    config = small_config(**{"data.path": data["two"]})
    given, expected = initial_weights(config, path), weights_of_run(source)
    assert (given.num_classes, given.mean) == (2, None) and given.digest() == expected.digest()
    assert initial_weights(config, source, "best").digest() == expected.digest()
    for arguments, message in [
        ((path, "last"), "checkpoint=last is for a run, but init_from="),
        ((path, None, "model"), "init_from=.* has no state dict torch_key=model"),
        ((source, None, "model"), "torch_key=model is for a file, but init_from="),
        ((source, "newest"), "checkpoint=newest must be one of"),
        ((source, "last_ema"), "checkpoint=last_ema: the run in .* averaged no weights"),
        ((tmp_path / "gone", None), "init_from=.*gone is not there: it must be a run's directory"),
        ((tmp_path, None), "init_from=.* holds no run"),
    ]:
        with pytest.raises(InputError, match=message):
            initial_weights(config, *arguments)
    wide = small_config(**{"data.path": data["two"], "model.name": "wrn-10-2"})
    with pytest.raises(
        InputError, match=r"init_from=.* is not a wrn-10-2 \(most similar network: wrn-10-1"
    ):
        initial_weights(wide, path)


def test_networks_of_the_zoo_fit_their_configs():
    config = digits_at.get_config()
    weights = initial_weights(config, "zoo:digits_at")
    assert fine_tuning.check_fit(config, weights, 10, (8, 8, 1)) == []
    assert fine_tuning.check_fit(config, weights, 7, (8, 8, 1)) == ["linear/bias", "linear/kernel"]
    assert weights.record()["source"] == "zoo:digits_at"
    with pytest.raises(InputError, match="checkpoint=.*zoo:digits_at has only"):
        other = "last" if weights.checkpoint == "best" else "best"
        initial_weights(config, "zoo:digits_at", other)


def test_the_history_is_beside_the_config(tuned):
    content = json.loads((tuned / "config.json").read_text())
    assert set(content) - set(digits_at_rwp.get_config().to_dict()) == {"history"}
