"""The record of an evaluation, and invalid arguments."""

import json
import pathlib

import jax
import numpy as np
import pytest

from rwp_jax.attacks.autoattack import ApgdCE, AutoAttackResult, Square, autoattack
from rwp_jax.errors import InputError
from rwp_jax.evaluation.benchmark import benchmark
from rwp_jax.evaluation.intervals import wilson
from rwp_jax.evaluation.record import record_of
from rwp_jax.runs.loaded import load_run
from tests.attacks.small_networks import images, labels, network

pytestmark = pytest.mark.usefixtures("one_device", "few_optimizations")

F, X = network(), images(20)
Y = labels(F, X, wrong=3)
ROBUST = np.arange(20) % 2 == 0
RESULT = AutoAttackResult(X, ROBUST, {"clean": ROBUST}, {}, [], Y, {})
QUICK = {"version": "custom", "attacks": [ApgdCE(steps=3), Square(queries=20)]}


def test_the_record_is_of_the_evaluation(tmp_path):
    path = tmp_path / "record.json"
    record = benchmark(F, (X, Y), "l_inf", 0.02, name="mine", path=path, **QUICK)
    result = autoattack(F, X, Y, "l_inf", 0.02, **QUICK)
    assert json.loads(path.read_text()) == record
    assert record["clean_acc"] == "85.00" and record["accuracy"]["clean"]["correct"] == 17
    robust = int(result.robust.sum())
    assert record["autoattack_acc"] == record["reported"] == f"{100 * robust / 20:.2f}"
    assert record["accuracy"]["robust"] == {
        "correct": robust,
        "images": 20,
        "accuracy": robust / 20,
        "interval_95": list(wilson(robust, 20)),
    }
    assert record["robust_after"] == {k: int(v.sum()) for k, v in result.robust_after.items()}
    by_class = record["by_class"]
    assert sum(c["robust"]["correct"] for c in by_class.values()) == robust
    assert sum(c["clean"]["images"] for c in by_class.values()) == 20
    assert by_class[str(Y[5])]["clean"]["images"] == int((Y[5] == Y).sum())
    assert record["name"] == "mine" and record["eps"] == "0.02" and record["norm"] == "l_inf"
    assert set(record["versions"]) - {"commit"} == {
        "rwp-jax",
        "python",
        "jax",
        "jaxlib",
        "flax",
        "numpy",
    }
    assert not record["unreliable"]
    settings = record["settings"]
    assert [attack.partition("(")[0] for attack in settings["attacks"]] == ["ApgdCE", "Square"]
    assert "steps=3" in settings["attacks"][0] and settings["key"] == 0
    assert set(settings) == {"version", "key", "attacks", "precision"}


def test_a_network_of_the_zoo_and_a_data_set_by_name(tmp_path):
    run = load_run("zoo:digits_at_rwp")
    record = benchmark(run, None, "l_2", 0.1, examples=24, **QUICK)
    assert record["dataset"] == "digits" and record["architecture"] == "wrn-10-2"
    assert record["accuracy"]["clean"]["images"] == 24 and record["norm"] == "l_2"
    zeros = np.zeros((8, 8, 8, 1), np.uint8)
    arrays = {"x_train": zeros, "x_test": zeros, "y_train": np.arange(8), "y_test": np.arange(8)}
    np.savez(tmp_path / "own.npz", **arrays)
    linear = lambda x: x.reshape(len(x), -1) @ np.eye(64, 10, dtype=np.float32)
    record = benchmark(linear, str(tmp_path / "own.npz"), "l_inf", 0.1, **QUICK)
    assert record["dataset"] == "own" and record["accuracy"]["clean"]["correct"] == 1


@pytest.mark.parametrize(
    ("network", "data", "arguments", "about"),
    [
        (3, (X, Y), {}, "network=3 must be a function or a run"),
        (F, None, {}, r"data= is missing: give \(x, y\)"),
        (F, "mnist", {}, "data='mnist' must be one of digits, cifar10"),
        (F, "nowhere.npz", {}, "data=nowhere.npz is not a file"),
        (F, 5, {}, r"data=5 must be \(x, y\)"),
        (F, (X, Y), {"examples": 21}, "examples=21: there are only 20"),
        (F, (X, Y), {"examples": -1}, "examples=-1 must be an integer of at least 0"),
        (F, (X, Y), {"path": "nowhere/a.json"}, "path=nowhere/a.json: there is no such directory"),
        (F, (X, Y), {"epsilon": 8}, "epsilon=8 must be in"),
        (F, (X, Y[:5]), {"examples": 5}, r"data= is x \[20, .*\] and y \[5\], must be images"),
        (F, (X, None), {}, r"data= is x .* and y \[\], must be images"),
        (F, (X, Y), {"name": pathlib.Path("a")}, "name=PosixPath.'a'. must be a text"),
        (F, (X, Y), {"path": "a", "state_path": "./a"}, "state_path=./a is the file of path="),
        (F, (X, Y), {"state_path": "a", "log_path": "a"}, "log_path=a is the file of state_path="),
    ],
)
def test_refusals(network, data, arguments, about):
    with pytest.raises(InputError, match=about):
        benchmark(network, data, **arguments)


def backward(x):
    return F(x)


def test_a_record_names_what_is_not_the_default():
    targets = (Y + 1) % 5
    given = {
        "targets": targets,
        "gradient_fn": backward,
        "individual": True,
        "key": jax.random.key(7),
    }
    record = record_of(
        RESULT, X, Y, "l_inf", 0.1, name="", dataset="", architecture="", arguments=given
    )
    settings = record["settings"]
    assert settings["key"] == [0, 7] and settings["individual"] is True
    assert settings["gradient_fn"].endswith("test_benchmark.backward")
    assert settings["targets"].startswith(f"{targets.dtype}[20], SHA-256 ")
    assert len(settings["attacks"]) == 4, "those of version standard"
    assert json.loads(json.dumps(record)) == record
    wide = record_of(
        RESULT, X.astype(float), Y, "l_inf", 0.1, name="", dataset="", architecture="", arguments={}
    )
    assert (wide["images_sha256"], wide["labels_sha256"]) == (
        record["images_sha256"],
        record["labels_sha256"],
    )
