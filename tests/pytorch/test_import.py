"""Import and export of PyTorch checkpoints, with PyTorch networks written for these tests."""

import json

import jax
import numpy as np
import pytest

from rwp_jax.configs import digits_at_rwp
from rwp_jax.errors import InputError
from rwp_jax.pytorch import export, import_
from rwp_jax.pytorch.contents import registration_order
from rwp_jax.runs import layout
from rwp_jax.runs.checkpoint import Checkpoints
from rwp_jax.runs.loaded import load_run
from rwp_jax.training import trainer
from tests.small import shrink, write_two_classes

pytestmark = pytest.mark.usefixtures("one_device")

torch = pytest.importorskip("torch")
networks = pytest.importorskip("benchmarks.torch_networks")

MODEL = "wrn-10-1"


def make_network(name=MODEL, seed=0, **changes):
    """Returns a float64 network, every number of which has changed since initialisation, and its SGD."""
    torch.manual_seed(seed)
    network = networks.Network(name, **changes).double()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    for _ in range(2):
        x = torch.randn(4, network.conv1.in_channels, 8, 8, dtype=torch.float64)
        network(x).square().mean().backward()
        optimizer.step()
    return network.eval(), optimizer


def config_of(name=MODEL, **changes):
    return shrink(
        digits_at_rwp.get_config(), **{"model.name": name, "data.name": "cifar10"} | changes
    )


def logits_of(directory, images):
    run = load_run(directory)
    return np.asarray(jax.jit(run.classifier.eval)(run.params, run.batch_stats, images))


def torch_logits(network, images):
    with torch.no_grad():
        return network(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()


def assert_same_entries(path, original):
    """Checks that a file's entries equal the original's in name, order, dtype, shape and bits."""
    entries = torch.load(path, weights_only=True)
    assert list(entries) == list(original)
    for name, value in original.items():
        assert entries[name].dtype == value.dtype and torch.equal(entries[name], value), name


IMAGES = np.random.default_rng(0).random((6, 8, 8, 3))


@pytest.mark.parametrize("name", [MODEL, "wrn-16-2", "preactresnet18"])
def test_logits_agree_and_a_round_trip_changes_no_bit(name, tmp_path):
    network, optimizer = make_network(name)
    torch.save(network.state_dict(), tmp_path / "in.pth")
    torch.save(optimizer.state_dict(), tmp_path / "sgd.pth")
    run = tmp_path / "run"
    import_.import_torch(config_of(name), run, tmp_path / "in.pth", tmp_path / "sgd.pth")
    np.testing.assert_allclose(
        logits_of(run, IMAGES), torch_logits(network, IMAGES), rtol=1e-12, atol=1e-12
    )

    export.export_torch(run, "best", tmp_path / "out.pth", tmp_path / "out_sgd.pth")
    assert_same_entries(tmp_path / "out.pth", network.state_dict())
    state = torch.load(tmp_path / "out_sgd.pth", weights_only=True)
    other, _ = make_network(name, seed=1)
    sgd = torch.optim.SGD(other.parameters(), lr=1.0)
    sgd.load_state_dict(state)
    momenta = [sgd.state[p]["momentum_buffer"] for p in other.parameters()]
    expected = [optimizer.state[p]["momentum_buffer"] for p in network.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(momenta, expected, strict=True))
    assert sgd.param_groups[0]["momentum"] == 0.9


def forms():
    """Yields (name, content of the file, network that it came from)."""
    network, _ = make_network()
    state = network.state_dict()
    yield "DataParallel", {f"module.{n}": v for n, v in state.items()}, network
    yield "nested", {"state_dict": state, "test_robust_acc": np.float64(0.5)}, network
    yield "model_state_dict", {"model_state_dict": state, "epoch": 3}, network
    with_sub_block, _ = make_network(sub_block1=True)
    yield "sub_block1", with_sub_block.state_dict(), with_sub_block


@pytest.mark.parametrize(("content", "network"), [(c, n) for _, c, n in forms()])
def test_forms_of_checkpoints(content, network, tmp_path):
    torch.save(content, tmp_path / "in.pth")
    import_.import_torch(config_of(), tmp_path / "run", tmp_path / "in.pth")
    np.testing.assert_allclose(
        logits_of(tmp_path / "run", IMAGES), torch_logits(network, IMAGES), rtol=1e-12, atol=1e-12
    )
    export.export_torch(tmp_path / "run", "last", tmp_path / "out.pth")
    written = torch.load(tmp_path / "out.pth", weights_only=True)
    nested = next((k for k in content if k.endswith("state_dict")), None)
    assert list(written) == ([nested] if nested else list(content))
    entries, original = (d[nested] if nested else d for d in (written, content))
    assert all(torch.equal(entries[n], v) for n, v in original.items())


@pytest.mark.parametrize("names", [("mean", "std"), ("mu", "sigma")])
def test_normalisation_inside_the_checkpoint(names, tmp_path):
    class Wrapped(torch.nn.Module):
        def __init__(self, network):
            super().__init__()
            for name, values in zip(names, ([0.5, 0.4, 0.3], [0.2, 0.25, 0.3]), strict=True):
                tensor = torch.tensor(values, dtype=torch.float64).view(1, 3, 1, 1)
                self.register_buffer(name, tensor)
            self.model = network

        def forward(self, x):
            return self.model((x - getattr(self, names[0])) / getattr(self, names[1]))

    wrapped = Wrapped(make_network()[0])
    torch.save(wrapped.state_dict(), tmp_path / "in.pth")
    run = tmp_path / "run"
    import_.import_torch(config_of(), run, tmp_path / "in.pth")
    np.testing.assert_allclose(
        logits_of(run, IMAGES), torch_logits(wrapped, IMAGES), rtol=1e-12, atol=1e-12
    )
    model = json.loads((run / layout.CONFIG).read_text())["model"]
    assert (model["mean"], model["std"]) == ([0.5, 0.4, 0.3], [0.2, 0.25, 0.3])
    export.export_torch(run, "last", tmp_path / "out.pth")
    assert_same_entries(tmp_path / "out.pth", wrapped.state_dict())


def test_safetensors(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    network, optimizer = make_network()
    safetensors.save_file(network.state_dict(), tmp_path / "in.safetensors")
    torch.save(optimizer.state_dict(), tmp_path / "sgd.pth")
    run = tmp_path / "run"
    import_.import_torch(config_of(), run, tmp_path / "in.safetensors", tmp_path / "sgd.pth")
    export.export_torch(run, "last", tmp_path / "out.safetensors")
    written, original = safetensors.load_file(tmp_path / "out.safetensors"), network.state_dict()
    assert written.keys() == original.keys()
    assert all(torch.equal(written[name], value) for name, value in original.items())
    half = {
        name: value.bfloat16() if value.is_floating_point() else value
        for name, value in original.items()
    }
    safetensors.save_file(half, tmp_path / "half.safetensors")
    import_.import_torch(config_of(), tmp_path / "half", tmp_path / "half.safetensors")
    export.export_torch(tmp_path / "half", "last", tmp_path / "half.pth")
    assert_same_entries(
        tmp_path / "half.pth",
        {name: half[name].to(value.dtype) for name, value in written.items()},
    )


@pytest.fixture(scope="module")
def halfway(tmp_path_factory):
    """Returns (config, directory) of a run that was stopped after the first of two epochs."""
    directory = tmp_path_factory.mktemp("halfway")
    path = write_two_classes(directory / "data.npz", 64, 20)
    config = shrink(digits_at_rwp.get_config(), **{"data.path": path})
    save = Checkpoints.save

    def stops(self, state, record):
        save(self, state, record)
        self.find("last")  # waits until it is written
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Checkpoints, "save", stops)
        trainer.train(config, directory / "run")
    return config, directory / "run"


def test_an_exported_run_loads_strictly_and_continues_where_it_was(halfway, tmp_path):
    config, run = halfway
    network, sgd = tmp_path / "network.pth", tmp_path / "sgd.pth"
    export.export_torch(run, "last", network, sgd, sub_block1=False)
    entries = torch.load(network, weights_only=True)
    twin = networks.Network(config.model.name, 2, channels=1).double()
    twin.load_state_dict(entries, strict=True)
    np.testing.assert_allclose(
        logits_of(run, IMAGES[..., :1]), torch_logits(twin.eval(), IMAGES[..., :1]), rtol=1e-12
    )

    imported = tmp_path / "imported"
    import_.import_torch(config, imported, network, sgd, epoch=1)
    weights = []
    for directory in (run, imported):
        summary = trainer.train(config, directory)
        assert summary["last"]["epoch"] == 2
        checkpoints = Checkpoints(directory)
        weights.append(jax.tree.leaves(checkpoints.load(checkpoints.find("last"))))
    assert len(weights[0]) == len(weights[1]) > 50
    assert all(np.array_equal(a, b) for a, b in zip(*weights, strict=True))


def test_network_and_optimizer_need_two_files(halfway, tmp_path):
    path = tmp_path / "same.pth"
    with pytest.raises(
        InputError, match="output=.*same.pth and torch_optimizer= must be different"
    ):
        export.export_torch(halfway[1], "last", path, path, sub_block1=False)
    assert not path.exists()


def test_an_optimizer_is_no_safetensors_file(halfway, tmp_path):
    output, sgd = tmp_path / "network.pth", tmp_path / "sgd.safetensors"
    with pytest.raises(InputError, match="sgd.safetensors: safetensors cannot hold an opti"):
        export.export_torch(halfway[1], "last", output, sgd)
    assert not output.exists()


def test_sub_block1_is_filled_for_classes_that_have_it(tmp_path):
    network, optimizer = make_network()
    torch.save(network.state_dict(), tmp_path / "in.pth")
    torch.save(optimizer.state_dict(), tmp_path / "sgd.pth")
    run = tmp_path / "run"
    import_.import_torch(config_of(), run, tmp_path / "in.pth", tmp_path / "sgd.pth")
    export.export_torch(
        run, "last", tmp_path / "out.pth", tmp_path / "out_sgd.pth", sub_block1=True
    )
    other = networks.Network(MODEL, sub_block1=True).double().eval()
    entries = torch.load(tmp_path / "out.pth", weights_only=True)
    other.load_state_dict(entries, strict=True)
    assert list(entries) == list(other.state_dict())
    np.testing.assert_array_equal(torch_logits(other, IMAGES), torch_logits(network, IMAGES))
    sgd = torch.optim.SGD(other.parameters(), lr=1.0)
    sgd.load_state_dict(torch.load(tmp_path / "out_sgd.pth", weights_only=True))
    assert torch.equal(
        sgd.state[other.fc.weight]["momentum_buffer"],
        optimizer.state[network.fc.weight]["momentum_buffer"],
    )
    assert not sgd.state[other.sub_block1.layer[0].conv1.weight]


@pytest.mark.parametrize(("name", "sub"), [("preactresnet18", 0), ("wrn-16-1", 0), ("wrn-16-1", 1)])
def test_registration_order(name, sub):
    names = list(networks.Network(name, sub_block1=bool(sub)).state_dict())
    assert sorted(sorted(names), key=registration_order) == names
