"""DM networks, and others with SiLU, against networks in PyTorch; import and export of checkpoints."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rwp_jax.configs import digits_at_rwp
from rwp_jax.errors import InputError
from rwp_jax.models.classifier import make_classifier
from rwp_jax.parity import inputs
from rwp_jax.pytorch import export, import_
from rwp_jax.pytorch.contents import registration_order
from rwp_jax.pytorch.initial import initial_weights
from rwp_jax.pytorch.state_dict import from_state_dict, to_state_dict
from rwp_jax.runs.loaded import load_run
from tests.small import shrink

torch = pytest.importorskip("torch")
networks = pytest.importorskip("benchmarks.torch_networks")
dm_networks = pytest.importorskip("benchmarks.torch_dm_networks")

MODEL = "dm-wrn-10-1"
SHAPE = (16, 8, 3)
IMAGES = inputs.images(6, 0, 16)[:, :, :8]


def make_network(name=MODEL, seed=0, activation="silu", **changes):
    """Returns a float64 network with entries drawn from a seed."""
    function = getattr(torch.nn.functional, activation)
    network = dm_networks.Network(name, activation=function, **changes).double()
    drawn = {
        entry: torch.tensor(inputs.tensor(entry, value.shape, seed))
        for entry, value in network.state_dict().items()
        if value.ndim
    }
    network.load_state_dict(drawn, strict=False)  # the counters stay
    return network


def channels_first(images):
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy())


def our_network(name, network, **changes):
    """Returns the classifier and the network's params and batch_stats."""
    classifier = make_classifier(name, 10, dtype="float64", **changes)
    state = {entry: value.numpy() for entry, value in network.state_dict().items()}
    templates = jax.eval_shape(lambda key: classifier.init(key, SHAPE), jax.random.key(0))
    params, batch_stats = (
        from_state_dict(name, tree, lambda entry, _: state[entry], collection)
        for tree, collection in zip(templates, ("params", "batch_stats"), strict=True)
    )
    return classifier, params, batch_stats


def assert_equal_arrays(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        scale = np.abs(value).max()
        np.testing.assert_allclose(ours[name], value, rtol=0, atol=1e-10 * scale, err_msg=name)


def check_forward_and_gradients(name, network, momentum=0.1, **changes):
    """Compares logits of both modes, running statistics and all gradients in training mode."""
    classifier, params, batch_stats = our_network(name, network, bn_momentum=momentum, **changes)
    x = channels_first(IMAGES).requires_grad_()
    with torch.no_grad():
        evaluated = network.eval()(x).numpy()
    ours = jax.jit(classifier.eval)(params, batch_stats, IMAGES)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = momentum
    logits = network.train()(x)
    weights = np.random.default_rng(1).normal(size=logits.shape)
    (logits * torch.from_numpy(weights)).sum().backward()

    def weighted(params, images):
        logits, moments = classifier.train(params, images)
        return (weights * logits).sum(), (logits, moments)

    gradients, (trained, moments) = jax.jit(jax.grad(weighted, (0, 1), has_aux=True))(
        params, jnp.asarray(IMAGES)
    )
    theirs = {"eval": evaluated, "train": logits.detach().numpy()}
    theirs["images"] = x.grad.numpy().transpose(0, 2, 3, 1)
    assert_equal_arrays({"eval": ours, "train": trained, "images": gradients[1]}, theirs)
    theirs = {entry: parameter.grad.numpy() for entry, parameter in network.named_parameters()}
    assert_equal_arrays(to_state_dict(name, gradients[0]), theirs)
    after = to_state_dict(name, classifier.fold(batch_stats, moments), "batch_stats")
    state = network.state_dict()
    assert_equal_arrays(after, {entry: state[entry].numpy() for entry in after})


@pytest.mark.parametrize(
    ("name", "activation", "momentum"),
    [
        (MODEL, "silu", 0.01),
        ("dm-wrn-16-2", "relu", 0.1),
        ("dm-preactresnet18", "silu", 1.0),
    ],
)
def test_dm_networks(name, activation, momentum):
    network = make_network(name, activation=activation)
    changes = {} if activation == "silu" else {"activation": activation}
    check_forward_and_gradients(name, network, momentum, **changes)


@pytest.mark.parametrize("name", ["wrn-10-2", "preactresnet18"])
def test_other_networks_with_silu(name, monkeypatch):
    functions = types.SimpleNamespace(relu=torch.nn.functional.silu)
    monkeypatch.setattr(networks, "F", functions)
    torch.manual_seed(0)
    network = networks.Network(name).double()
    check_forward_and_gradients(name, network, 0.1, activation="silu")


def config_of(name=MODEL, **changes):
    changes = {"model.name": name, "data.name": "cifar10"} | changes
    return shrink(digits_at_rwp.get_config(), **changes)


@pytest.mark.parametrize("name", [MODEL, "dm-wrn-16-1", "dm-preactresnet18"])
def test_a_checkpoint_comes_back_bit_by_bit(name, tmp_path):
    network = make_network(name).eval()
    wrapped = {f"module.{entry}": value for entry, value in network.state_dict().items()}
    torch.save({"state_dict": wrapped, "epoch": 3}, tmp_path / "in.pth")
    moments = {"model.mean": (0.5, 0.4, 0.3), "model.std": (0.2, 0.25, 0.3)}
    run = tmp_path / "run"
    import_.import_torch(config_of(name, **moments), run, tmp_path / "in.pth")
    loaded = load_run(run)
    logits = jax.jit(loaded.classifier.eval)(loaded.params, loaded.batch_stats, IMAGES)
    with torch.no_grad():
        normalised = (IMAGES - np.array(moments["model.mean"])) / np.array(moments["model.std"])
        theirs = network(channels_first(normalised)).numpy()
    np.testing.assert_allclose(logits, theirs, rtol=1e-11, atol=1e-11)
    export.export_torch(run, "best", tmp_path / "out.pth")
    written = torch.load(tmp_path / "out.pth", weights_only=True)["state_dict"]
    assert list(written) == list(wrapped)
    assert all(torch.equal(written[entry], value) for entry, value in wrapped.items())


def test_momentum_is_matched_by_registration_in_safetensors(tmp_path):
    """Entries of safetensors are in alphabetical order, momentum buffers in that of parameters()."""
    safetensors = pytest.importorskip("safetensors.torch")
    network = make_network()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    network(channels_first(IMAGES)).square().mean().backward()
    optimizer.step()
    safetensors.save_file(network.state_dict(), tmp_path / "in.safetensors")
    torch.save(optimizer.state_dict(), tmp_path / "sgd.pth")
    run = tmp_path / "run"
    import_.import_torch(
        config_of(), run, tmp_path / "in.safetensors", tmp_path / "sgd.pth", epoch=2
    )
    (run / "torch_aside.npz").unlink()  # exported like a run that was trained here
    export.export_torch(run, "last", tmp_path / "out.pth", tmp_path / "out_sgd.pth")
    other = make_network(seed=1)
    entries = torch.load(tmp_path / "out.pth", weights_only=True)
    assert list(entries) == list(other.state_dict())
    other.load_state_dict(entries, strict=True)
    sgd = torch.optim.SGD(other.parameters(), lr=1.0)
    sgd.load_state_dict(torch.load(tmp_path / "out_sgd.pth", weights_only=True))
    for ours, theirs in zip(other.parameters(), network.parameters(), strict=True):
        assert torch.equal(ours, theirs)
        ours, theirs = sgd.state[ours], optimizer.state[theirs]
        assert torch.equal(ours["momentum_buffer"], theirs["momentum_buffer"])


@pytest.mark.parametrize("name", ["dm-wrn-22-1", "dm-preactresnet18"])
def test_registration_order(name):
    names = list(dm_networks.Network(name).state_dict())
    assert sorted(sorted(names), key=registration_order) == names


@pytest.mark.parametrize(
    ("trained", "name", "message"),
    [
        (MODEL, "dm-wrn-16-2", "is not a dm-wrn-16-2 .most similar network: dm-wrn-10-1"),
        (MODEL, "wrn-10-1", "is not a wrn-10-1 .most similar network: dm-wrn-10-1"),
        ("dm-preactresnet18", "preactresnet18", "most similar network: dm-preactresnet18"),
        ("wrn-10-1", MODEL, "is not a dm-wrn-10-1 .most similar network: wrn-10-1"),
    ],
)
def test_other_classes_are_refused(trained, name, message, tmp_path):
    made = networks.Network(trained).double() if trained == "wrn-10-1" else make_network(trained)
    torch.save(made.state_dict(), tmp_path / "in.pth")
    with pytest.raises(InputError, match=message):
        import_.import_torch(config_of(name), tmp_path / "run", tmp_path / "in.pth")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("entry", ["layer.1.block.0.shortcut.weight", "logits.bias", "more"])
def test_an_entry_more_or_less_is_refused(entry, tmp_path):
    state = make_network().state_dict()
    wrong = state | {"more": torch.zeros(2)} if entry == "more" else state
    wrong = {n: value for n, value in wrong.items() if entry == "more" or n != entry}
    torch.save(wrong, tmp_path / "in.pth")
    what = "is unknown" if entry == "more" else "is missing"
    with pytest.raises(InputError, match=f"is not a dm-wrn-10-1: {entry} {what}"):
        import_.import_torch(config_of(), tmp_path / "run", tmp_path / "in.pth")


def test_classes_and_channels_are_read_from_the_checkpoint(tmp_path):
    state = make_network(num_classes=100, channels=1).state_dict()
    torch.save(state, tmp_path / "in.pth")
    with pytest.raises(InputError, match="is for images of 1 channels and 100 classes"):
        import_.import_torch(config_of(), tmp_path / "run", tmp_path / "in.pth")


def test_a_run_begins_with_the_weights_of_a_network_for_gray_images(tmp_path):
    state = make_network().state_dict()
    state["init_conv.weight"] = state["init_conv.weight"][:, :1]
    torch.save(state, tmp_path / "gray.pth")
    params = initial_weights(config_of(), tmp_path / "gray.pth").params
    kernel = state["init_conv.weight"].numpy().transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(params["conv1"]["kernel"], kernel)
