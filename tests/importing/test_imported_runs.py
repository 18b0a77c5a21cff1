"""Networks of other programs in JAX become runs that predict the same."""

import json
import pathlib

import flax.linen as nn
import jax
import numpy as np
import pytest
from flax import serialization

from rwp_jax.configs import digits_at_rwp
from rwp_jax.errors import InputError
from rwp_jax.models.adapters import from_linen
from rwp_jax.models.classifier import make_classifier, register_model
from rwp_jax.pytorch.import_ import import_network
from rwp_jax.runs.checkpoint import Checkpoints
from rwp_jax.runs.loaded import load_run
from tests.importing.conftest import MODEL
from tests.importing.test_foreign_files import assert_equal, flat
from tests.own_code import keep_registered
from tests.small import shrink, write_two_classes

pytestmark = pytest.mark.usefixtures("one_device", "few_optimizations")


@pytest.fixture
def config(tmp_path):
    return shrink(
        digits_at_rwp.get_config(),
        **{
            "data.path": write_two_classes(tmp_path / "data.npz", 32, 16),
            "dtype": "float32",
            "model.name": MODEL,
        },
    )


def two_classes(seed=0):
    """Returns a network for the images of `write_two_classes`."""
    classifier = make_classifier(MODEL, 2)
    params, batch_stats = jax.device_get(classifier.init(jax.random.key(seed), (8, 8, 1)))
    return classifier, {"params": params, "batch_stats": batch_stats}


def test_an_imported_run_predicts_the_same_and_its_checkpoint_is_imported_again(config, tmp_path):
    classifier, tree = two_classes()
    path = tmp_path / "net.msgpack"
    path.write_bytes(serialization.to_bytes(tree))
    import_network(config, tmp_path / "run", path)
    run = load_run(tmp_path / "run")
    assert_equal({"params": run.saved["params"], "batch_stats": run.saved["batch_stats"]}, tree)
    x = np.random.default_rng(0).random((4, 8, 8, 1)).astype(np.float32)
    expected = classifier.eval(tree["params"], tree["batch_stats"], x)
    np.testing.assert_allclose(run.predict(x), expected, rtol=1e-5, atol=1e-5)

    checkpoints = Checkpoints(tmp_path / "run")
    step = checkpoints.path(checkpoints.newest()["step"])
    import_network(config, tmp_path / "again", pathlib.Path(step), epoch=1)
    again = load_run(tmp_path / "again", "last")
    assert_equal({name: again.saved[name] for name in tree}, tree)
    assert again.epoch == 0 and again.saved["step"] == 2


def test_pytorch_by_a_map_of_names(config, tmp_path):
    torch = pytest.importorskip("torch")
    networks = pytest.importorskip("benchmarks.torch_networks")
    from rwp_jax.pytorch.state_dict import torch_names

    _, tree = two_classes()
    names = {"head.scale": None}
    for collection, part in tree.items():
        paths = flat(part)
        named = zip(torch_names(MODEL, part, collection), paths, strict=True)
        names |= {f"net.{name.replace('block', 'stage')}": path for (name, _), path in named}
    network = networks.Network(MODEL, 2, channels=1)
    state = {f"net.{n.replace('block', 'stage')}": v for n, v in network.state_dict().items()}
    torch.save({"state_dict": state | {"head.scale": torch.ones(2)}}, tmp_path / "net.pth")
    (tmp_path / "names.json").write_text(json.dumps(names))
    import_network(config, tmp_path / "run", tmp_path / "net.pth", names=tmp_path / "names.json")
    run = load_run(tmp_path / "run")
    x = np.random.default_rng(0).random((4, 8, 8, 1)).astype(np.float32)
    with torch.no_grad():
        expected = network.eval()(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
    np.testing.assert_allclose(run.predict(x), expected, rtol=1e-5, atol=1e-5)


class Own(nn.Module):
    num_classes: int
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(4, (3, 3))(x)
        norm = nn.BatchNorm(not train, axis_name=self.axis_name, name="norm")
        return nn.Dense(self.num_classes)(nn.relu(norm(x)).mean((1, 2)))


def test_a_registered_network(config, tmp_path, monkeypatch):
    keep_registered(monkeypatch)
    register_model("own", from_linen(Own))
    config.model.name = "own"
    x = np.random.default_rng(0).random((4, 8, 8, 1)).astype(np.float32)
    variables = Own(2).init(jax.random.key(3), x)
    (tmp_path / "own.msgpack").write_bytes(serialization.to_bytes(variables))
    import_network(config, tmp_path / "run", tmp_path / "own.msgpack")
    run = load_run(tmp_path / "run")
    assert run.image_shape == (8, 8, 1) and run.num_classes == 2
    np.testing.assert_allclose(run.predict(x), Own(2).apply(variables, x), rtol=1e-5, atol=1e-6)
    (tmp_path / "own.msgpack").write_bytes(serialization.to_bytes({"params": variables["params"]}))
    with pytest.raises(InputError, match="is not a own.*: batch_stats/norm/mean is missing"):
        import_network(config, tmp_path / "other", tmp_path / "own.msgpack")
