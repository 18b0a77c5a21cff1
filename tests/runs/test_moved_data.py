"""A run whose data move, are re-encoded or change: digests identify them, not their path."""

import json
import shutil

import numpy as np
import pytest

from rwp_jax.command_line import modes, parsing
from rwp_jax.configs import digits_at_rwp
from rwp_jax.errors import InputError
from rwp_jax.evaluation import pseudo_label, table2
from rwp_jax.evaluation.subject import Changes
from rwp_jax.explain.probe import make_probe
from rwp_jax.runs.loaded import load_run
from rwp_jax.runs.metrics import read_metrics
from rwp_jax.training import experiment, trainer, training_data
from tests.fresh_flags import forget_flags
from tests.small import shrink, write_two_classes

pytestmark = pytest.mark.usefixtures("one_device")


def config_of(path):
    config = shrink(digits_at_rwp.get_config("full"), **{"data.path": str(path)})
    config.evaluation.train_examples = 0
    return config


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """The data, a whole run on them, one that ended after its first epoch, and the compiled parts."""
    directory = tmp_path_factory.mktemp("runs")
    path = write_two_classes(directory / "data.npz", 50, 20)
    config = config_of(path)
    data = training_data.load_data(config)
    parts = experiment.build(config, data.num_classes, training_data.mixture_of(config, data).steps)
    write = trainer.MetricsWriter.write

    def dies(self, epoch, *figures):
        if epoch == 1:
            raise KeyboardInterrupt
        write(self, epoch, *figures)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "build", lambda *_, **__: parts)
        trainer.train(config, directory / "whole")
        patch.setattr(trainer.MetricsWriter, "write", dies)
        with pytest.raises(KeyboardInterrupt):
            trainer.train(config, directory / "begun")
    return directory, parts


def arrays_of(directory):
    with np.load(directory / "data.npz") as file:
        return dict(file)


def stored(way, directory, elsewhere):
    """The data of the run, stored in another way; the path of the file."""
    path = elsewhere / "new.npz"
    if way == "moved":
        shutil.copy(directory / "data.npz", path)
    else:
        save = np.savez_compressed if way == "compressed" else np.savez
        save(path, **arrays_of(directory))
    return path


@pytest.mark.parametrize("way", ["moved", "compressed", "uncompressed"])
def test_the_same_data_elsewhere(way, original, tmp_path, monkeypatch):
    directory, parts = original
    monkeypatch.setattr(experiment, "build", lambda *_, **__: parts)
    run, path = tmp_path / "run", stored(way, directory, tmp_path)
    shutil.copytree(directory / "begun", run)
    trainer.train(config_of(path), run)
    assert read_metrics(run) == read_metrics(directory / "whole")
    assert json.loads((run / "config.json").read_text())["data"]["path"] == str(path)
    np.testing.assert_array_equal(load_run(run, "last").test_images, arrays_of(directory)["x_test"])


def test_evaluations_take_the_new_path(original, tmp_path):
    directory, _ = original
    run = tmp_path / "run"
    shutil.copytree(directory / "whole", run)
    config = json.loads((run / "config.json").read_text())
    config["data"]["path"] = str(tmp_path / "gone.npz")
    (run / "config.json").write_text(json.dumps(config))
    lost = r"config\.data\.path=.*gone\.npz.*; if the data have moved, give config\.data\.path"
    with pytest.raises(InputError, match=lost):
        table2.evaluate(run, "last", "natural", 0, False)
    path = stored("compressed", directory, tmp_path)
    paths = (("data.path", str(path)),)
    (summary,) = table2.evaluate(run, "last", "natural", 0, False, Changes(paths=paths))
    (last,) = [r for r in read_metrics(run) if r["split"] == "test" and r["epoch"] == 1]
    assert summary["columns"]["natural"]["accuracy"] == last["natural_accuracy"]
    assert make_probe(run, "last", 8, dict(paths)).epoch == 1


CHANGES = {
    "a pixel of the test images": ("x_test", lambda x: np.bitwise_xor(x, x == x[0, 0, 0, 0])),
    "a test label": ("y_test", lambda y: np.roll(y, 1)),
    "a training label": ("y_train", lambda y: np.roll(y, 1)),
}


@pytest.mark.parametrize("what", CHANGES)
def test_changed_data_are_refused(what, original, tmp_path, monkeypatch):
    directory, parts = original
    monkeypatch.setattr(experiment, "build", lambda *_, **__: parts)
    name, change = CHANGES[what]
    arrays, path = arrays_of(directory), tmp_path / "data.npz"
    np.savez(path, **arrays | {name: change(arrays[name]).astype(arrays[name].dtype)})
    run = tmp_path / "run"
    shutil.copytree(directory / "begun", run)
    before = read_metrics(run)
    with pytest.raises(InputError, match=rf"was trained on other data .{name} changed."):
        trainer.train(config_of(path), run)
    assert read_metrics(run) == before
    paths = (("data.path", str(path)),)
    refused = rf"its data have changed since training .{name}."
    with pytest.raises(InputError, match=refused):
        table2.evaluate(run, "last", "natural", 0, False, Changes(paths=paths))
    with pytest.raises(InputError, match=refused):
        pseudo_label.pseudo_label(run, "", tmp_path / "labels.npz", "last", dict(paths))
    with pytest.raises(InputError, match=refused):
        _ = load_run(run, "last", dict(paths)).test_labels
    assert not (tmp_path / "labels.npz").exists()


@pytest.fixture
def parsed(monkeypatch):
    """Parses a command line; returns the paths of data that it says have moved."""

    def parse(*argv):
        forget_flags()
        monkeypatch.setattr("sys.argv", ["main.py", *argv])
        parsing.parse_flags(["main.py", *argv], modes.MODES)
        return modes._moved_data()

    yield parse
    forget_flags()


def test_the_flag_is_that_of_the_config(parsed, original):
    evaluate = "--mode=evaluate", "--workdir=run"
    assert parsed(*evaluate, "--config.data.path=new.npz") == {"data.path": "new.npz"}
    assert parsed(*evaluate, "--config.data.data_dir", "new") == {"data.data_dir": "new"}
    assert parsed(*evaluate, "--moved_data=data.path=a=b") == {"data.path": "a=b"}
    with pytest.raises(
        InputError, match="--config.epochs is not for --mode=evaluate: .*except data"
    ):
        parsed(*evaluate, "--config.epochs=3")
    with pytest.raises(InputError, match="--config.data.path is not for --mode=export_torch"):
        parsed("--mode=export_torch", "--workdir=run", "--config.data.path=x")
    with pytest.raises(InputError, match="paths= has 'epochs', must have some of data.path"):
        load_run(original[0] / "whole", "last", {"epochs": "3"})
    with pytest.raises(InputError, match="--moved_data=epochs=3 must be KEY=PATH"):
        parsed(*evaluate, "--moved_data=epochs=3")
