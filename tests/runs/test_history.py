"""The history of a run's config: what was in effect in which epoch, and what may change."""

import json

import pytest

from rwp_jax.configs import digits_at_rwp
from rwp_jax.errors import InputError
from rwp_jax.files import write_json
from rwp_jax.runs import extension, history
from rwp_jax.runs.config import changed, completed, flatten, unflatten
from rwp_jax.runs.history import Change, History
from rwp_jax.runs.loaded import read_config
from rwp_jax.runs.resume_point import choose

FIRST = Change(2, 10, {"epochs": [2, 6], "threat.epsilon": [0.1, 0.2]}, "0.1.0")
SECOND = Change(4, 30, {"batch_size": [16, 8], "objective.shift": [None, 0.5]}, "0.1.0")
CONFIG = {"epochs": 6, "batch_size": 8, "threat.epsilon": 0.2, "objective.shift": 0.5}
PAST = History((FIRST, SECOND))


def test_each_epoch_has_the_config_that_it_was_trained_with():
    begun = {"epochs": 2, "batch_size": 16, "threat.epsilon": 0.1}
    assert PAST.config_at(CONFIG, -1) == PAST.config_at(CONFIG, 1) == begun
    assert PAST.config_at(CONFIG, 2) == begun | {"epochs": 6, "threat.epsilon": 0.2}
    assert PAST.config_at(CONFIG, 4) == CONFIG
    assert [PAST.begin(epoch) for epoch in (-1, 1, 2, 3, 4, 9)] == [
        (0, 0),
        (0, 0),
        (2, 10),
        (2, 10),
        (4, 30),
        (4, 30),
    ]


def test_stretches_cover_every_epoch_once():
    found = list(PAST.stretches(CONFIG))
    assert [(s.first, s.end, s.steps_before) for s in found] == [(0, 2, 0), (2, 4, 10), (4, 6, 30)]
    assert [s.config["epochs"] for s in found] == [2, 6, 6]
    again = SECOND._replace(keys={"seed": [0, 1]})  # a change that no epoch was trained with
    replaced = History((FIRST, SECOND, again)).stretches(CONFIG | {"seed": 1})
    assert [(s.first, s.end) for s in replaced] == [(0, 2), (2, 4), (4, 6)]
    assert [(s.first, s.end) for s in History().stretches(CONFIG)] == [(0, 6)]
    finished = History((FIRST._replace(after_epochs=6),))
    assert [s.config["threat.epsilon"] for s in finished.stretches(CONFIG)] == [0.1]


def test_accuracies_are_comparable_since_the_last_change_of_what_they_measure():
    assert [PAST.measured_since(epochs) for epochs in (0, 2, 3, 5)] == [0, 0, 2, 2]
    records = [
        {"epoch": 0, "pgd_accuracy": 0.9, "config": {"threat.epsilon": 0.1}},
        {"epoch": 1, "config": {"threat.epsilon": 0.2}},  # not evaluated
    ]
    assert choose("best", records)["epoch"] == 0 and choose("last", records)["epoch"] == 1
    records += [
        {"epoch": 2, "pgd_accuracy": 0.5, "config": {"threat.epsilon": 0.2}},
        {"epoch": 3, "pgd_accuracy": 0.4, "config": {"threat.epsilon": 0.2, "seed": 1}},
    ]
    assert choose("best", records)["epoch"] == 2
    assert choose("best", [records[0], {"epoch": 2, "pgd_accuracy": 0.5}])["epoch"] == 0


def test_it_is_kept_beside_the_config(tmp_path):
    nested = unflatten(CONFIG)
    history.write(tmp_path, nested, PAST._replace(init_from={"source": "a"}))
    content, past = history.read(tmp_path)
    assert content == nested and past == History((FIRST, SECOND), {"source": "a"})
    history.write(tmp_path, nested, History())
    assert json.loads((tmp_path / "config.json").read_text()) == nested


def test_a_change_writes_the_new_values_and_nothing_else(tmp_path):
    held = {"epochs": 2, "data.path": "old.npz", "data.data_dir": "", "extra_data.path": ""}
    held = unflatten(held | {"checkpoint_steps": 3})
    history.write(tmp_path, held, History())
    wanted = flatten(held) | {"epochs": 6, "data.path": "new.npz", "checkpoint_steps": 0}
    change = Change(2, 10, {"epochs": [2, 6]}, "0.1.0")
    lines = history.record(tmp_path, wanted, History((change,)))
    assert lines == [f"{tmp_path}: from epoch 3 on config.epochs=6 (was 2)"]
    content, past = history.read(tmp_path)
    assert flatten(content) == wanted | {"checkpoint_steps": 3} and past == History((change,))
    late = Change(6, 30, {"seed": [0, 1]}, "0.1.0")
    lines = history.record(tmp_path, wanted, History((change, late)))
    assert lines == [f"{tmp_path}: no epoch is left for the new config.seed"]
    assert history.read(tmp_path)[1] == History((change,))


@pytest.mark.parametrize(
    "entry",
    [{"changes": [{"epochs": 3}]}, {"changes": [FIRST._replace(after_epochs="2")._asdict()]}],
)
def test_a_malformed_history_is_one_line(entry, tmp_path):
    config = digits_at_rwp.get_config().to_dict()
    write_json(tmp_path / "config.json", config | {"history": entry})
    for reads in (history.read, read_config):
        with pytest.raises(InputError, match="config.json") as error:
            reads(tmp_path)
        assert "\n" not in str(error.value)


def test_values_before_a_key_came_are_known():
    flat = flatten(digits_at_rwp.get_config().to_dict())
    older = {key: value for key, value in flat.items() if key != "evaluation.every"}
    wanted = flat | {"evaluation.every": 2, "objective.shift": 0.5, "checkpoint_steps": 9}
    assert changed(older, wanted) == {"evaluation.every": [1, 2], "objective.shift": [None, 0.5]}
    assert changed(wanted, flat)["objective.shift"] == [0.5, None]
    assert changed(older, flat | {"evaluation.every": 1}) == {}


def test_a_config_is_complete_without_its_history():
    config = digits_at_rwp.get_config().to_dict()
    assert completed(config | {"history": {"changes": []}}) == completed(config)


def test_nothing_is_extended_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="holds no run that extend= could continue"):
        extension.check(tmp_path, {"epochs": 1}, True, extend=True)
    with pytest.raises(InputError, match="extend= continues a run, but resume is off"):
        extension.check(tmp_path, {"epochs": 1}, False, extend=True)
    assert extension.check(tmp_path, {"epochs": 1}, True) is False
