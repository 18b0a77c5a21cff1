"""`--mode evaluate` on a run of two epochs."""

import dataclasses
import json

import numpy as np
import pytest

from rwp_jax.attacks.autoattack import suite
from rwp_jax.errors import InputError
from rwp_jax.evaluation import columns, subject, table2
from rwp_jax.evaluation.intervals import wilson
from rwp_jax.evaluation.subject import load_subjects
from rwp_jax.runs import layout
from rwp_jax.runs.loaded import load_run
from tests.small import train_on_two_classes

pytestmark = pytest.mark.usefixtures("one_device")

EXAMPLES = 40


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Trains a run with 40 test images of two classes, some of which can be attacked at epsilon 0.2."""
    return train_on_two_classes(tmp_path_factory, EXAMPLES, **{"evaluation.steps": 20})


def test_a_network_of_more_classes_than_the_data_is_remarked_on(run, monkeypatch, capsys):
    wider = dataclasses.replace(load_run(run, "last"), num_classes=10)
    monkeypatch.setattr(subject, "load_run", lambda *_: wider)
    load_subjects(run, "last", 0)
    assert "the network has 10 classes, the data set npz has only 2" in capsys.readouterr().out


@pytest.fixture(autouse=True)
def short_attacks(monkeypatch):
    short = (suite.ApgdCE(steps=5), suite.Square(queries=50))
    monkeypatch.setitem(suite.VERSIONS, "standard", short)


def evaluate(run, attacks="natural,fgsm,pgd20,autoattack", examples=0, which="last", images=False):
    table2.evaluate(run, which, attacks, examples, images)
    output = run / "evaluation" / (f"{which}_{examples}" if examples else which)
    with np.load(output / layout.EVALUATION_NPZ) as arrays:
        return json.loads((output / layout.EVALUATION_JSON).read_text()), dict(arrays)


def test_the_columns(run, capsys):
    summary, arrays = evaluate(run, images=True)
    printed = capsys.readouterr().out
    assert summary["examples"] == EXAMPLES and summary["epsilon"] == 0.2 and summary["epoch"] == 2
    accuracy = {name: column["accuracy"] for name, column in summary["columns"].items()}
    assert accuracy["natural"] > accuracy["pgd20"] >= accuracy["autoattack"]
    for name, column in summary["columns"].items():
        correct = arrays[f"correct_{name}"]
        assert correct.shape == (EXAMPLES,) and set(correct) <= {0, 1}
        assert column["correct"] == correct.sum()
        low, high = column["interval_95"]
        assert 0 <= low <= column["accuracy"] <= high <= 1
    header, row = printed.splitlines()[1:3]
    assert header.split() == ["natural", "FGSM", "PGD-20", "AutoAttack"]
    assert row.split()[3] == f"{100 * accuracy['natural']:.2f}"

    # The saved images lie in the ball and have the verdicts that are saved.
    (evaluated,) = load_subjects(run, "last", 0)
    network = evaluated.run
    x = evaluated.images / 255
    for name in ("fgsm", "pgd20", "autoattack"):
        x_adv = arrays[f"x_adv_{name}"]
        assert np.abs(x_adv - x).max() <= 0.2 + 1e-6 and x_adv.min() >= 0 and x_adv.max() <= 1
        logits = network.classifier.eval(network.params, network.batch_stats, x_adv)
        right = np.asarray(logits).argmax(-1) == evaluated.labels
        np.testing.assert_array_equal(right, arrays[f"correct_{name}"])


def test_pgd20_is_that_of_the_training_log(run):
    """Evaluation and training log start from the same points and report the same accuracy."""
    summary, _ = evaluate(run, "natural,pgd20")
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    (logged,) = [r for r in records if r["split"] == "test" and r["epoch"] == 1]
    assert 0 < logged["pgd_accuracy"] < 1
    for name, column in (("natural_accuracy", "natural"), ("pgd_accuracy", "pgd20")):
        assert summary["columns"][column]["accuracy"] == logged[name]


def test_the_first_examples(run):
    whole, some = (evaluate(run, "pgd20", examples)[1] for examples in (0, 10))
    np.testing.assert_array_equal(some["correct_pgd20"], whole["correct_pgd20"][:10])


def test_goes_on_after_a_kill(run, monkeypatch):
    monkeypatch.setattr(columns, "SAVE_SECONDS", 0)
    make_attack, calls = columns.make_attack, []

    def killed_after(batches):
        def make(*arguments):
            attack = make_attack(*arguments)

            def call(indices):
                if len(calls) == batches:
                    raise KeyboardInterrupt
                calls.append(indices)
                return attack(indices)

            return call

        return make

    monkeypatch.setattr(columns, "make_attack", killed_after(2))
    with pytest.raises(KeyboardInterrupt):
        evaluate(run, "cw", which="best")
    monkeypatch.setattr(columns, "make_attack", killed_after(10))
    _, arrays = evaluate(run, "cw", which="best")
    seen = np.concatenate(calls)
    assert len(calls) == 3 and set(seen) == set(range(EXAMPLES)), "16, 16, 8 images and padding"
    assert len(set(seen[:32])) == 32 and not set(seen[32:]) & set(seen[:32])
    evaluate(run, "cw", which="best")
    assert len(calls) == 3, "nothing is done twice"


def test_the_evaluation_of_something_else_is_refused(run):
    evaluate(run, "natural")
    path = run / "evaluation" / "last" / layout.EVALUATION_NPZ
    with np.load(path) as arrays:
        held = dict(arrays)
    before = path.read_bytes()
    np.savez(path, **held | {"identity": np.array("of another network")})
    with pytest.raises(InputError, match="evaluation of another network, data set or threat model"):
        evaluate(run, "natural")
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="is not an evaluation"):
        evaluate(run, "natural")
    path.write_bytes(before)


def test_columns_of_other_starts_stay_where_they_are_complete(run):
    """In files of 0.1.0, whose attacks started elsewhere, complete columns stay and others begin anew."""
    evaluate(run, "natural,fgsm", which="best")
    path = run / "evaluation" / "best" / layout.EVALUATION_NPZ
    with np.load(path) as arrays:
        held = {name: values for name, values in arrays.items() if name != "starts"}
    kept = 1 - held["correct_natural"]
    old = {"correct_natural": kept, "correct_fgsm": np.full(EXAMPLES, -1, np.int8)}
    old["correct_fgsm"][:5] = 1 - held["correct_fgsm"][:5]
    np.savez(path, **held | old)
    _, arrays = evaluate(run, "natural,fgsm", which="best")
    np.testing.assert_array_equal(arrays["correct_natural"], kept)
    np.testing.assert_array_equal(arrays["correct_fgsm"], held["correct_fgsm"])


@pytest.mark.parametrize(
    ("arguments", "about"),
    [
        ({"attacks": "natural,cw0"}, "attacks=: 'cw0' must be one of natural, fgsm, pgd20.*pgdN"),
        ({"attacks": "natural,pgd0"}, "attacks=: 'pgd0' must be one of natural, fgsm, pgd20.*pgdN"),
        ({"attacks": ""}, "attacks=: '' must be one of"),
        ({"examples": -1}, "examples=-1 must be positive"),
        ({"examples": 41}, "examples=41: there are only 40 test images"),
        ({"which": "first"}, "checkpoint=first must be one of best, best_by"),
    ],
)
def test_refusals(run, arguments, about):
    with pytest.raises(InputError, match=about):
        evaluate(run, **arguments)


@pytest.mark.parametrize("value", ['"x"', "null", "[1]"])
def test_a_config_edited_by_hand_is_refused_in_one_line(value, run, tmp_path):
    config = json.loads((run / "config.json").read_text())
    config["threat"]["epsilon"] = json.loads(value)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        InputError, match="holds no run: in its config.json a key is missing or of the wrong type"
    ):
        evaluate(tmp_path)


def test_wilson():
    """Intervals equal R's binom.confint(method = "wilson")."""
    np.testing.assert_allclose(wilson(8, 10), (0.4901625, 0.9433178), atol=1e-6)
    np.testing.assert_allclose(wilson(0, 10), (0.0, 0.2775328), atol=1e-6)
    np.testing.assert_allclose(wilson(10, 10)[1], 1)
