"""Checkpoints equal what was saved, or are reported as damaged."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rwp_jax.distributed import devices
from rwp_jax.errors import InputError
from rwp_jax.files import seal, unseal
from rwp_jax.runs.checkpoint import Checkpoints, DamagedCheckpoint


def state(step):
    return {"w": jnp.full((3, 2), step, jnp.float64), "step": jnp.asarray(step, jnp.int32)}


def record(step, accuracy, **more):
    return {"step": step, "epoch": step, "pgd_accuracy": accuracy, **more}


def save(directory, *records):
    checkpoints = Checkpoints(directory)
    for r in records:
        checkpoints.save(state(r["step"]), r)
    checkpoints.close()


def without_digests(record):
    return {name: value for name, value in record.items() if name not in ("digests", "files")}


def test_keeps_the_newest_two_and_the_best(tmp_path):
    accuracies = [0.1, 0.5, 0.3, 0.5, 0.2]  # of two equal best, the earlier is chosen
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.find("last") is None and checkpoints.restore_newest(state(0)) is None
    save(tmp_path, *(record(step, accuracy) for step, accuracy in enumerate(accuracies)))

    assert without_digests(checkpoints.find("last")) == record(4, 0.2)
    best = checkpoints.find("best")
    assert without_digests(best) == record(1, 0.5)
    loaded = checkpoints.load(best)
    np.testing.assert_array_equal(loaded["w"], state(1)["w"])
    restored, found = checkpoints.restore_newest(devices.replicate(state(0)))
    assert found["step"] == 4 == restored["step"] and restored["step"].dtype == np.int32
    np.testing.assert_array_equal(restored["w"], state(4)["w"])
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert kept == ["1", "1.json", "3", "3.json", "4", "4.json"]


def test_a_checkpoint_within_an_epoch_is_the_newest_but_not_the_last(tmp_path):
    save(tmp_path, record(4, 0.2), {"step": 6, "epoch": 1, "within_epoch": {}})
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.find("last")["step"] == checkpoints.find("best")["step"] == 4
    assert checkpoints.newest()["step"] == checkpoints.restore_newest(state(0))[1]["step"] == 6


def test_saving_copies_before_it_returns(tmp_path):
    """Saving copies the state, because the next step donates its buffers."""
    checkpoints = Checkpoints(tmp_path)
    current = devices.replicate(state(7))
    checkpoints.save(current, record(0, 0.1))
    jax.tree.map(lambda leaf: leaf.delete(), current)
    restored, _ = checkpoints.restore_newest(state(0))
    np.testing.assert_array_equal(restored["w"], state(7)["w"])


def flip(path, position=0.5):
    """Flips one bit of a file."""
    data = bytearray(path.read_bytes())
    data[int(position * (len(data) - 1))] ^= 8
    path.write_bytes(data)


def largest_file(directory):
    return max((p for p in directory.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def change_accuracy(directory):
    path = directory / "1.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"pgd_accuracy": 0.9}))


@pytest.mark.parametrize(
    ("damage", "about"),
    [
        (lambda d: flip(largest_file(d / "1")), "1 is damaged"),
        (lambda d: largest_file(d / "1").unlink(), "1 is damaged"),
        (lambda d: largest_file(d / "1").write_bytes(b""), "1 is damaged"),
        (lambda d: (d / "1").rename(d / "away"), "1 is damaged"),
        (lambda d: flip(d / "1.json"), "1.json is damaged"),
        (lambda d: (d / "1.json").write_text(""), "1.json is damaged"),
        (lambda d: (d / "1.json").write_text("[]"), "1.json is damaged"),
        (change_accuracy, "1.json is damaged"),
        (lambda d: (d / "0.json").rename(d / "1.json"), "1.json is damaged"),
    ],
)
def test_damage_is_named_and_the_one_before_is_used(damage, about, tmp_path, capsys):
    save(tmp_path, record(0, 0.1), record(1, 0.2))
    copy = tmp_path / "checkpoints" / "copy.json"
    copy.write_bytes((tmp_path / "checkpoints" / "0.json").read_bytes())
    damage(tmp_path / "checkpoints")
    copy.rename(tmp_path / "checkpoints" / "0.json")
    restored, found = Checkpoints(tmp_path).restore_newest(state(0))
    assert found["step"] == 0 == restored["step"]
    said = capsys.readouterr().out
    assert about in said and "step 0 is used" in said and len(said.splitlines()) == 1


def test_arrays_of_another_checkpoint_are_noticed(tmp_path):
    save(tmp_path, record(0, 0.1), record(1, 0.2))
    directory = tmp_path / "checkpoints"
    (directory / "1").rename(directory / "away")
    (directory / "0").rename(directory / "1")
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(DamagedCheckpoint, match="1 is damaged .* is not what was written"):
        checkpoints.load(checkpoints.newest())
    path = directory / "1.json"  # in the format before files had digests
    content = unseal(path.read_text())
    del content["files"]
    path.write_text(seal(content))
    with pytest.raises(DamagedCheckpoint, match="1 is damaged .step is not what was saved"):
        checkpoints.load(checkpoints.find("last"))


def test_no_sound_checkpoint_is_an_error_that_deletes_nothing(tmp_path):
    save(tmp_path, record(0, 0.1), record(1, 0.2))
    directory = tmp_path / "checkpoints"
    flip(directory / "0.json")
    flip(largest_file(directory / "1"))
    before = sorted(directory.rglob("*"))
    with pytest.raises(InputError, match="no intact checkpoint: .* nothing was deleted") as error:
        Checkpoints(tmp_path).restore_newest(state(0))
    assert "\n" not in str(error.value) and sorted(directory.rglob("*")) == before


def test_a_save_that_fails_is_reported_and_leaves_the_one_before(tmp_path, monkeypatch):
    save(tmp_path, record(0, 0.1))
    checkpoints = Checkpoints(tmp_path)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("rwp_jax.runs.checkpoint.write_text", full)
        checkpoints.save(state(1), record(1, 0.2))
        with pytest.raises(InputError, match="1 cannot be written .No space left .* are intact"):
            checkpoints.close()
    assert Checkpoints(tmp_path).restore_newest(state(0))[1]["step"] == 0


def test_a_full_disk_is_noticed_before_anything_is_written(tmp_path, monkeypatch):
    save(tmp_path, record(0, 0.1))
    before = sorted((tmp_path / "checkpoints").rglob("*"))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=7))
    for step in (1, 0):  # a new checkpoint, and one that exists
        checkpoints = Checkpoints(tmp_path)
        checkpoints.save(state(step), record(step, 0.2))
        with pytest.raises(InputError, match=f"{step} cannot be written .No space .* are intact"):
            checkpoints.close()
    assert sorted((tmp_path / "checkpoints").rglob("*")) == before


def test_removed_records_are_named_and_nothing_is_overwritten(tmp_path, capsys):
    save(tmp_path, record(0, 0.1), record(1, 0.2))
    directory = tmp_path / "checkpoints"
    (directory / "1.json").unlink()
    assert Checkpoints(tmp_path).restore_newest(state(0))[1]["step"] == 0
    assert "1 has no record" in capsys.readouterr().out
    (directory / "0.json").unlink()
    with pytest.raises(InputError, match="no intact checkpoint: checkpoint .* has no record"):
        Checkpoints(tmp_path).restore_newest(state(0))


def test_a_first_save_that_was_killed_before_its_record_begins_again(tmp_path, capsys):
    save(tmp_path, record(0, 0.1))
    (tmp_path / "checkpoints" / "0.json").unlink()
    assert Checkpoints(tmp_path).restore_newest(state(0)) is None
    assert "training starts over" in capsys.readouterr().out


def test_damaged_checkpoints_take_no_place_of_sound_ones(tmp_path):
    save(tmp_path, record(10, 0.5), record(20, 0.1), record(30, 0.2))
    directory = tmp_path / "checkpoints"
    for step in (20, 30):
        shutil.rmtree(directory / str(step) / "d")
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.restore_newest(state(0))[1]["step"] == 10
    for step in (12, 14):
        checkpoints.save(state(step), record(step, 0.1))
    assert checkpoints.newest()["step"] == 14
    assert checkpoints.find("best")["step"] == 10
    checkpoints.close()
    kept = {path.name for path in directory.iterdir() if path.is_dir()}
    assert kept == {"10", "12", "14", "20", "30"}, "damaged ones stay"
