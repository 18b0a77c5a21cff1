"""State dicts of RobustBench's CIFAR classes: those of this family load, relatives are refused by name.

The modules below have the names and the computation of the model zoo's classes, and are written for these
tests.
"""

import jax
import numpy as np
import pytest

from rwp_jax.errors import InputError
from rwp_jax.models.classifier import make_classifier
from rwp_jax.pytorch import contents, torch_files
from rwp_jax.pytorch.state_dict import from_state_dict

pytestmark = pytest.mark.usefixtures("one_device")

torch = pytest.importorskip("torch")
networks = pytest.importorskip("benchmarks.torch_networks")

MODEL = "wrn-10-1"
IMAGES = np.random.default_rng(0).random((4, 8, 8, 3))
NORMS = {"mean": [0.4914, 0.4822, 0.4465], "std": [0.2471, 0.2435, 0.2616]}


class WithMuAndSigma(networks.Network):
    """The buffers of Rice2020OverfittingNet, Chen2020EfficientNet and many others: beside the network."""

    def __init__(self, *arguments, **keywords):
        super().__init__(*arguments, **keywords)
        for name, values in zip(("mu", "sigma"), NORMS.values(), strict=True):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1))

    def forward(self, x):
        return super().forward((x - self.mu) / self.sigma)


class Normalize(torch.nn.Module):
    def __init__(self):
        super().__init__()
        for name, values in NORMS.items():
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1))

    def forward(self, x):
        return (x - self.mean) / self.std


class Wrapped(torch.nn.Module):
    """A network behind a module of its own that normalises, with the prefixes `normalize.` and `model.`."""

    def __init__(self, *arguments, **keywords):
        super().__init__()
        self.normalize, self.model = Normalize(), networks.Network(*arguments, **keywords)

    def forward(self, x):
        return self.model(self.normalize(x))


def trained(network):
    """Returns the network in float64, every number of which has changed since initialisation."""
    network = network.double()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(2):
        network(torch.randn(4, 3, 8, 8, dtype=torch.float64)).square().mean().backward()
        optimizer.step()
    return network.eval()


# What the zoo's files hold, by the models that have them.
LOADED = {
    "WideResNet (Wu2020Adversarial, Sehwag2021Proxy)": (networks.Network, {}, ""),
    "sub_block1 (Carmon2019Unlabeled, Zhang2019Theoretically)": (
        networks.Network,
        {"sub_block1": True},
        "module.",
    ),
    "mu and sigma (Rice2020Overfitting, Augustin2020)": (WithMuAndSigma, {}, ""),
    "both (Chen2020Efficient)": (WithMuAndSigma, {"sub_block1": True}, "model."),
    "normalize. and model.": (Wrapped, {}, ""),
    "100 classes (Addepalli2021Towards_WRN34)": (networks.Network, {"num_classes": 100}, ""),
}


def imported(path, key, model, classes):
    """Returns our logits of the network in a file."""
    entries, nested = torch_files.read_state_dict(path, key)
    parts = contents.split(entries, nested)
    classifier = make_classifier(model, classes, parts.mean, parts.std, dtype="float64")
    params, batch_stats = classifier.shapes((8, 8, 3))
    templates = {"params": params, "batch_stats": batch_stats}
    trees = contents.fitted(path, parts, model, templates)
    return np.asarray(jax.jit(classifier.eval)(*trees.values(), IMAGES))


def torch_logits(network):
    with torch.no_grad():
        return network(torch.from_numpy(IMAGES.transpose(0, 3, 1, 2).copy())).numpy()


@pytest.mark.parametrize("name", LOADED)
def test_wide_resnets_load(name, tmp_path):
    torch.manual_seed(0)
    make, settings, prefix = LOADED[name]
    network = trained(make(MODEL, **settings))
    state = {prefix + entry: value for entry, value in network.state_dict().items()}
    path = tmp_path / "model.pt"
    torch.save(state if "mu" in name else {"state_dict": state}, path)
    logits = imported(path, "", MODEL, settings.get("num_classes", 10))
    np.testing.assert_allclose(logits, torch_logits(network), rtol=1e-9, atol=1e-9)


def test_preact_resnets_of_the_second_version_load(tmp_path):
    """PreActBlockV2 with BatchNorm before the last layer: Rice2020Overfitting (L2), Kireev2021."""
    torch.manual_seed(0)
    network = trained(WithMuAndSigma("preactresnet18"))
    torch.save({"last": network.state_dict(), "best": network.state_dict()}, tmp_path / "model.pt")
    logits = imported(tmp_path / "model.pt", "last", "preactresnet18", 10)
    np.testing.assert_allclose(logits, torch_logits(network), rtol=1e-9, atol=1e-9)


def test_a_constant_normalisation_of_the_class_is_the_configs(tmp_path):
    """Hendrycks2019UsingNet computes 2 x - 1 and its files do not say so."""
    torch.manual_seed(0)
    network = trained(networks.Network(MODEL))
    classifier = make_classifier(MODEL, 10, (0.5,) * 3, (0.5,) * 3, dtype="float64")
    params, batch_stats = (
        from_state_dict(MODEL, tree, lambda name, _: network.state_dict()[name].numpy(), part)
        for part, tree in zip(
            ("params", "batch_stats"), classifier.init(jax.random.key(0), (8, 8, 3)), strict=True
        )
    )
    with torch.no_grad():
        images = torch.from_numpy(IMAGES.transpose(0, 3, 1, 2).copy())
        expected = network(2 * images - 1).numpy()
    logits = classifier.eval(params, batch_stats, IMAGES)
    np.testing.assert_allclose(logits, expected, rtol=1e-9, atol=1e-9)


def robust_wide_resnet():
    state = networks.Network(MODEL).state_dict()
    blocks = {"conv1.": "stem_conv.", "block1.": "blocks.0.", "block2.": "blocks.1."}
    for ours, theirs in blocks.items():
        state = {
            theirs + n.removeprefix(ours) if n.startswith(ours) else n: v for n, v in state.items()
        }
    return state


def without(model, beginning):
    return {
        n: v for n, v in networks.Network(model).state_dict().items() if not n.startswith(beginning)
    }


def post_activated():
    state = without("preactresnet18", "bn.")
    return state | {"bn1.weight": torch.ones(64), "bn1.bias": torch.zeros(64)}


RELATIVES = {
    "robust_wide_resnet (Huang2021)": (robust_wide_resnet, "RobustWideResNet", "widths"),
    "no last BatchNorm (Wong2020)": (
        lambda: without("preactresnet18", "bn."),
        "without BatchNorm before the last layer",
        "shortcuts",
    ),
    "ResNet18 (Addepalli2022)": (post_activated, "activates after its convolutions", "ResNet"),
    "no last bias (Pang2020)": (
        lambda: without(MODEL, "fc.bias"),
        "whose last layer has no bias",
        "",
    ),
}


@pytest.mark.parametrize("name", RELATIVES)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_relatives_are_refused_by_name(name, prefix, tmp_path):
    make, *words = RELATIVES[name]
    path = tmp_path / "model.pt"
    torch.save({prefix + entry: value for entry, value in make().items()}, path)
    model = "preactresnet18" if "layer1" in str(list(make())) else MODEL
    with pytest.raises(InputError) as error:
        imported(path, "", model, 10)
    text = str(error.value)
    assert f"is not a {model} (it is " in text and all(word in text for word in words)
    assert "\n" not in text and len(text) < 600
