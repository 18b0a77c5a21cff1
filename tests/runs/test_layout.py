import json
import pathlib
import subprocess
import sys

import pytest

from rwp_jax.errors import InputError
from rwp_jax.files import write_json
from rwp_jax.runs import layout
from rwp_jax.runs.metrics import MetricsWriter, read_metrics

CONFIG = {"seed": 0, "model": {"name": "wrn-10-1", "mean": (0.5,)}, "c_max": float("inf")}


def test_a_missing_or_empty_directory_is_free(tmp_path):
    assert layout.check(tmp_path, CONFIG, resume=True) is False
    assert layout.check(tmp_path / "a" / "b", CONFIG, resume=True) is False
    assert not (tmp_path / "a").exists()


def test_the_same_config_resumes(tmp_path):
    write_json(tmp_path / layout.CONFIG, CONFIG)
    assert layout.check(tmp_path, CONFIG, resume=True) is True
    with pytest.raises(InputError, match="and resume is off"):
        layout.check(tmp_path, CONFIG, resume=False)


def test_keys_that_came_later_count_as_what_runs_did_before(tmp_path):
    write_json(tmp_path / layout.CONFIG, CONFIG)
    later = {"evaluation": {"every": 1}, "data": {"train_examples": 0}}
    assert layout.check(tmp_path, CONFIG | later, resume=True) is True
    with pytest.raises(InputError, match="evaluation.every='missing' there, 2 here"):
        layout.check(tmp_path, CONFIG | {"evaluation": {"every": 2}}, resume=True)


@pytest.mark.parametrize(
    ("config", "difference"),
    [
        (CONFIG | {"seed": 1}, "seed=0 there, 1 here"),
        (CONFIG | {"model": {"name": "wrn-16-2", "mean": (0.5,)}}, "model.name='wrn-10-1' there"),
        (CONFIG | {"new": 1}, "new='missing' there, 1 here"),
    ],
)
def test_another_config_is_named_and_nothing_touched(tmp_path, config, difference):
    write_json(tmp_path / layout.CONFIG, CONFIG)
    before = (tmp_path / layout.CONFIG).read_bytes()
    with pytest.raises(InputError, match=difference):
        layout.check(tmp_path, config, resume=True)
    assert [p.name for p in tmp_path.iterdir()] == [layout.CONFIG]
    assert (tmp_path / layout.CONFIG).read_bytes() == before


def test_directories_that_hold_no_run(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="holds files but no readable config.json"):
        layout.check(tmp_path, CONFIG, resume=True)
    for path in (tmp_path / "thesis.tex", tmp_path / "thesis.tex" / "run"):
        with pytest.raises(InputError, match="thesis.tex is a file, must be a directory"):
            layout.check(path, CONFIG, resume=True)


def test_metrics_of_an_interrupted_epoch_are_dropped(tmp_path):
    writer = MetricsWriter(tmp_path, [], 0)
    for epoch in range(3):
        writer.write(epoch, 10 * (epoch + 1), "train", {"loss": 1.0 - epoch / 10})
        writer.write(epoch, 10 * (epoch + 1), "test", {"pgd_accuracy": epoch / 10})
    writer.close()
    saved = writer.records[:4]  # as in the checkpoint after the second epoch
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3, "ste')  # cut off by a kill
    writer = MetricsWriter(tmp_path, saved, 2)
    writer.write(2, 30, "train", {"loss": 0.5})
    writer.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == read_metrics(tmp_path)
    assert [(line["epoch"], line["split"]) for line in lines] == [
        (0, "train"),
        (0, "test"),
        (1, "train"),
        (1, "test"),
        (2, "train"),
    ]
    assert lines[-1] == {"epoch": 2, "step": 30, "split": "train", "loss": 0.5}


def test_a_lock_ends_with_its_process(tmp_path):
    code = f"""
import os, pathlib, signal
from rwp_jax.runs import layout
with layout.lock(pathlib.Path({str(tmp_path)!r})):
    print("locked", flush=True)
    signal.pause()
"""
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert owner.stdout.readline() == "locked\n"
    message = f"workdir={tmp_path} is in use by process {owner.pid} on "
    with pytest.raises(InputError, match=message), layout.lock(tmp_path):
        pass
    owner.kill()
    owner.wait()
    owner.stdout.close()
    with layout.lock(tmp_path):
        pass
    assert layout.check(tmp_path, CONFIG, resume=True) is False, "a lock's file is no run"


def test_keys_that_came_later_and_are_off_make_no_other_run(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    later = CONFIG | {"later": 0, "section": {"name": ""}, "checkpoint_steps": 5}
    assert layout.check(tmp_path, later, resume=True)
    with pytest.raises(InputError, match="later='missing' there, 0.9 here"):
        layout.check(tmp_path, later | {"later": 0.9}, resume=True)


def test_no_run_has_a_name_of_the_zoo():
    """`load_run` would load the package's network of that name instead."""
    with pytest.raises(InputError, match="workdir=zoo:mine is a network of the package: a run"):
        layout.check(pathlib.Path("zoo:mine"), {}, resume=True)
