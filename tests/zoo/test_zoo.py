"""The zoo holds exactly the networks that its cards describe."""

import json
import pathlib

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from rwp_jax.configs import digits_at_rwp
from rwp_jax.data import sources
from rwp_jax.errors import InputError
from rwp_jax.pytorch.export import export_torch
from rwp_jax.report.results import read_result
from rwp_jax.runs import layout, zoo
from rwp_jax.runs.loaded import config_of, load_run, read_config
from rwp_jax.training import trainer
from rwp_jax.zoo import catalogue as command
from tests.small import shrink, write_evaluation, write_two_classes

pytestmark = pytest.mark.usefixtures("one_device")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Trains a run of two epochs and writes an evaluation with every column."""
    path = write_two_classes(tmp_path_factory.mktemp("data") / "data.npz", 50, 20)
    directory = tmp_path_factory.mktemp("run") / "run"
    trainer.train(shrink(digits_at_rwp.get_config(), **{"data.path": path}), directory)
    accuracies = dict.fromkeys(layout.COLUMNS, 0.5)
    write_evaluation(directory, "last", accuracies, examples=20, epoch=1)
    evaluation = directory / "evaluation/last/evaluation.json"
    content = json.loads(evaluation.read_text())
    for column in content["columns"].values():
        column["interval_95"] = [0.3, 0.7]
    evaluation.write_text(json.dumps(content))
    return directory


@pytest.fixture
def empty(tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "NETWORKS", tmp_path)
    return tmp_path


def add(run, *arguments):
    flags = ["--workdir", str(run), "--name", "tiny", "--recipe", "python main.py --config tiny.py"]
    return command.main(["add", *flags, *arguments])


def test_a_network_comes_back_as_it_was(run, empty, capsys):
    assert add(run, "--seeds", "0,1") == 0
    original, copy = load_run(run, "last"), load_run("zoo:tiny")
    assert copy.config.to_dict() == original.config.to_dict() and copy.epoch == 1
    assert load_run("zoo:tiny", "last").epoch == 1
    assert repr(copy).startswith("FinishedRun('wrn-10-") and "2 classes" in repr(copy)
    with pytest.raises(InputError, match="^checkpoint=best: zoo:tiny has only last$"):
        load_run("zoo:tiny", "best")
    for a, b in zip(
        *(jax.tree.leaves((r.params, r.batch_stats)) for r in (original, copy)), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    images = np.full((2, 8, 8, 1), 0.5)
    logits = [r.classifier.eval(r.params, r.batch_stats, images) for r in (original, copy)]
    np.testing.assert_array_equal(*logits)
    card = zoo.read_card("tiny")
    versions = json.loads((run / layout.SUMMARY).read_text())["versions"]
    assert (card.version, card.commit) == (versions["rwp-jax"], versions.get("commit", ""))
    assert card.seeds == [0, 1] and card.test_images == 20 and len(card.accuracy) == 6
    assert command.main([]) == 0
    listed = capsys.readouterr().out.splitlines()[-1]
    assert listed.startswith("zoo:tiny") and listed.count("50.00") == 6


def test_a_card_older_than_a_key_says_what_was_done_then(run, empty):
    add(run)
    card = json.loads((empty / "tiny.json").read_text())
    del card["config"]["evaluation"]["every"], card["config"]["gradient_dtype"]
    (empty / "tiny.json").write_text(json.dumps(card))
    for config in (load_run("zoo:tiny").config, config_of("zoo:tiny")):
        assert config.evaluation.every == 1 and config.gradient_dtype == ""


def test_it_is_exported_as_its_run_is(run, empty, tmp_path_factory):
    add(run)
    output = tmp_path_factory.mktemp("exported")
    export_torch(run, "last", output / "run.safetensors")
    export_torch(pathlib.Path("zoo:tiny"), None, output / "zoo.safetensors")
    ours, zoos = (load_file(output / f"{name}.safetensors") for name in ("run", "zoo"))
    assert ours.keys() == zoos.keys()
    for name, values in ours.items():
        steps = name.endswith("num_batches_tracked")
        np.testing.assert_array_equal(zoos[name], 0 if steps else values)
    with pytest.raises(InputError, match="zoo:tiny is a network of the package"):
        export_torch(pathlib.Path("zoo:tiny"), "last", output / "a.pth", output / "b.pth")


def test_a_file_that_is_not_the_cards_is_refused(run, empty):
    add(run)
    path = empty / "tiny.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="tiny.safetensors is missing or damaged"):
        load_run("zoo:tiny")


def test_a_card_alone_says_how_to_train_the_network(run, empty):
    add(run, "--card_only")
    assert not (empty / "tiny.safetensors").exists()
    with pytest.raises(
        InputError, match="has only a card, .* `python main.py --config tiny.py` trains"
    ):
        load_run("zoo:tiny")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--checkpoint", "best_ema"], "--checkpoint=best_ema"),
        (["--checkpoint", "best"], "best was not evaluated under natural, fgsm"),
        (["--seeds", "zero"], "--seeds=zero must be comma-separated integers"),
        (["--name", "../x"], "--name=../x must consist of lower-case letters"),
    ],
)
def test_bad_input(arguments, message, run, empty, capsys):
    assert add(run, *arguments) == 2
    assert message in capsys.readouterr().err and not any(empty.iterdir())


def test_the_package_stays_small(run, empty, monkeypatch, capsys):
    monkeypatch.setattr(zoo, "LARGEST", 1000)
    assert add(run) == 2
    assert "more than 1,000; --card_only keeps only the card" in capsys.readouterr().err
    assert not any(empty.iterdir())


def test_unknown_names(empty):
    with pytest.raises(InputError, match="^zoo:resnet is not in the zoo; there are none$"):
        load_run("zoo:resnet")
    for needs_a_run in (read_config, read_result):
        with pytest.raises(
            InputError, match="workdir=zoo:x is a network of the package: a run's directory"
        ):
            needs_a_run(pathlib.Path("zoo:x"))


def test_the_networks_fit_in_the_package():
    assert sum(path.stat().st_size for path in zoo.NETWORKS.glob("*.safetensors")) < zoo.LARGEST


@pytest.mark.parametrize("name", zoo.names())
def test_a_network_is_as_good_as_its_card_says(name):
    card = zoo.read_card(name)
    if not card.file["packaged"]:
        pytest.skip("a card alone")
    run = load_run(f"zoo:{name}")
    data = sources.load(**run.config.data.to_dict())
    logits = run.classifier.eval(run.params, run.batch_stats, data.x_test.astype(np.float32) / 255)
    assert card.test_images == len(data.y_test)
    right = np.sum(np.argmax(np.asarray(logits), -1) == data.y_test)
    promised = round(card.accuracy["natural"]["accuracy"] * card.test_images)
    assert abs(right - promised) <= 2, "other processors round otherwise"
