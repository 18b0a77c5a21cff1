"""Weights of any PyTorch network become a Flax module's variables and the same weights again."""

import flax.linen as nn
import jax
import numpy as np
import pytest
from flax import nnx

from rwp_jax.errors import InputError
from rwp_jax.pytorch import convert, convert_back

torch = pytest.importorskip("torch")

IMAGES = np.random.default_rng(0).random((3, 8, 8, 3))
WORDS = np.arange(12).reshape(3, 4)


class Mine(nn.Module):
    @nn.compact
    def __call__(self, images, words, train=False):
        x = nn.Conv(8, (3, 3), strides=2, padding=1, name="conv")(images)
        x = nn.BatchNorm(use_running_average=not train, epsilon=1e-5, name="norm")(x)
        x = nn.relu(nn.Conv(8, (3, 3), feature_group_count=4, padding=1, name="grouped")(x))
        seen = nn.Dense(6, name="flat")(x.reshape(len(x), -1))
        read = nn.Embed(12, 6, name="words")(words)
        read = nn.Conv(6, (3,), padding=1, name="along")(read).mean(1)
        return nn.Dense(6, use_bias=False, name="square")(nn.LayerNorm(name="last")(seen + read))


class Theirs(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3, 2, 1),
            torch.nn.BatchNorm2d(8),
            torch.nn.Conv2d(8, 8, 3, 1, 1, groups=4),
        )
        self.flat = torch.nn.Linear(4 * 4 * 8, 6)
        self.words = torch.nn.Embedding(12, 6)
        self.along = torch.nn.Conv1d(6, 6, 3, 1, 1)
        self.last = torch.nn.LayerNorm(6, eps=1e-6)
        self.square = torch.nn.Linear(6, 6, bias=False)
        self.register_buffer("unused", torch.zeros(2))

    def forward(self, images, words):
        x = self.stem(images).relu().flatten(1)
        read = self.along(self.words(words).transpose(1, 2)).mean(2)
        return self.square(self.last(self.flat(x) + read))


def by_position(weight):
    """A linear layer behind a flattened image: inputs from (channel, row, column) to the channel last."""
    return weight.reshape(6, 8, 4, 4).transpose(2, 3, 1, 0).reshape(-1, 6)


NAMES = {
    "stem.0.weight": "params/conv/kernel",
    "stem.0.bias": "params/conv/bias",
    "stem.1.weight": "params/norm/scale",
    "stem.1.bias": "params/norm/bias",
    "stem.1.running_mean": ("batch_stats", "norm", "mean"),
    "stem.1.running_var": "batch_stats/norm/var",
    "stem.2.weight": "params/grouped/kernel",
    "stem.2.bias": "params/grouped/bias",
    "flat.weight": ("params/flat/kernel", by_position),
    "flat.bias": "params/flat/bias",
    "words.weight": "params/words/embedding",
    "along.weight": ("params/along/kernel", (2, 1, 0)),
    "along.bias": "params/along/bias",
    "last.weight": "params/last/scale",
    "last.bias": "params/last/bias",
    "square.weight": "params/square/kernel",
    "unused": None,
}


def in_float64(tree):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, np.float64), tree)


@pytest.fixture(scope="module")
def theirs():
    torch.manual_seed(0)
    network = Theirs().double()
    for _ in range(2):  # running statistics that differ from the initial ones
        network(torch.from_numpy(IMAGES.transpose(0, 3, 1, 2).copy()), torch.from_numpy(WORDS))
    return network.eval()


@pytest.fixture(scope="module")
def template():
    return in_float64(jax.eval_shape(Mine().init, jax.random.key(0), IMAGES, WORDS))


def logits_of(network):
    with torch.no_grad():
        images = torch.from_numpy(IMAGES.transpose(0, 3, 1, 2).copy())
        return network(images, torch.from_numpy(WORDS)).numpy()


@pytest.mark.parametrize("form", ["module", "state dict", "arrays", "function"])
def test_a_converted_network_computes_the_same(form, theirs, template):
    state = theirs.state_dict()
    source = {
        "module": theirs,
        "state dict": state,
        "arrays": {name: value.numpy() for name, value in state.items()},
    }.get(form, theirs)
    names = NAMES.get if form == "function" else NAMES
    variables = convert(source, names, template)
    assert jax.tree.structure(variables) == jax.tree.structure(template)
    np.testing.assert_allclose(
        Mine().apply(variables, IMAGES, WORDS), logits_of(theirs), rtol=1e-10, atol=1e-10
    )


def test_and_back_again_bit_for_bit(theirs, template):
    invertible = {name: target for name, target in NAMES.items() if not name.startswith("flat")}
    names = invertible | {"flat.weight": "params/flat/kernel", "flat.bias": "params/flat/bias"}
    state = theirs.state_dict()
    back = convert_back(convert(theirs, names, template), names, theirs)
    assert list(back) == list(state)
    for name, value in state.items():
        assert back[name].dtype == value.numpy().dtype
        np.testing.assert_array_equal(back[name], value.numpy())
    with pytest.raises(InputError, match="converts 'flat.weight' by a function, which cannot be"):
        convert_back(convert(theirs, NAMES, template), NAMES, theirs)


def test_an_nnx_module():
    class Small(nnx.Module):
        def __init__(self, rngs):
            self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
            self.norm = nnx.BatchNorm(4, rngs=rngs)

        def __call__(self, x):
            return self.norm(self.conv(x))

    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, 1, 1), torch.nn.BatchNorm2d(4))
    network = network.eval().double()
    norm = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}
    names = {f"1.{theirs}": f"norm/{ours}" for theirs, ours in norm.items()}
    names |= {"0.weight": "conv/kernel", "0.bias": "conv/bias"}

    module = nnx.eval_shape(lambda: Small(nnx.Rngs(0)))
    graph, state = nnx.split(module)
    module = nnx.merge(graph, convert(network, names, in_float64(state)))
    module.eval()
    with torch.no_grad():
        expected = network(torch.from_numpy(IMAGES.transpose(0, 3, 1, 2).copy())).numpy()
    np.testing.assert_allclose(
        module(IMAGES), expected.transpose(0, 2, 3, 1), rtol=1e-10, atol=1e-10
    )


LINEAR = {"weight": np.ones((3, 2), np.float32), "bias": np.zeros(3, np.float32)}
TEMPLATE = {
    "fc": {
        "kernel": jax.ShapeDtypeStruct((2, 3), np.float32),
        "bias": jax.ShapeDtypeStruct((3,), np.float32),
    }
}
FC = {"weight": "fc/kernel", "bias": "fc/bias"}


def fails(name):
    raise KeyError(name)


ERRORS = [
    ({"source": 3}, "^source=3 must be a torch.nn.Module or its state dict"),
    ({"source": {"weight": 3}}, "^source= has weight=3, must be a tensor or an array"),
    (
        {"source": LINEAR | {"bias": np.full(3, 0.1)}},
        "^source= has 'bias', which is float64, would be",
    ),
    ({"source": LINEAR | {"bias": np.full(3, 1e300)}}, "would be rounded in float32"),
    ({"names": {"weight": "fc/kernel"}}, "^names= lacks 'bias': map it to a path, or to None"),
    ({"names": FC | {"bias": None}}, "^names= gives no entry for fc/bias$"),
    ({"names": FC | {"bias": "fc/scale"}}, "'fc/scale' for 'bias', which template= lacks: it has"),
    ({"names": FC | {"bias": "fc/kernel"}}, "'fc/kernel' for 'weight' and 'bias'"),
    ({"names": FC | {"bias": 3}}, "^names= has 3 for 'bias', must be a path"),
    ({"names": FC | {"weight": ("fc/kernel", (0, 0))}}, r"axes \(0, 0\) for 'weight', must be"),
    ({"names": FC | {"weight": ("fc/kernel", (0,))}}, r"axes \[0\] for 'weight' of \[3, 2\]"),
    (
        {"names": FC | {"weight": ("fc/kernel", (0, 1))}},
        r"'weight' of \[3, 2\], which becomes \[3, 2\]; fc/kernel of template= is \[2, 3\]",
    ),
    ({"names": FC | {"weight": ("fc/kernel", fails)}}, "^names= fails: KeyError"),
    ({"names": fails}, "^names= fails: KeyError"),
    ({"template": {}}, "^template= must be a tree of arrays"),
]


@pytest.mark.parametrize(("changes", "message"), ERRORS)
def test_errors_name_the_entry(changes, message):
    with pytest.raises(InputError, match=message) as error:
        convert(**({"source": LINEAR, "names": FC, "template": TEMPLATE} | changes))
    assert "\n" not in str(error.value)


def test_dtypes_that_hold_the_numbers_are_converted():
    source = {"weight": torch.ones(3, 2, dtype=torch.bfloat16) / 3, "bias": np.ones(3, np.float64)}
    found = convert(source, FC, TEMPLATE)["fc"]
    assert found["kernel"].dtype == found["bias"].dtype == np.float32
    np.testing.assert_array_equal(found["kernel"], source["weight"].float().numpy().T)
    back = convert_back({"fc": found}, FC, source)
    assert back["weight"].dtype == np.float32 and back["bias"].dtype == np.float64


@pytest.mark.parametrize(
    ("kernel", "others", "message"),
    [
        (np.ones((2, 3)), {}, "'fc/bias' for 'bias', which variables= lacks"),
        (np.ones((3, 2)), {"bias": np.ones(3)}, r"fc/kernel of \[3, 2\], which becomes \[2, 3\]"),
        (np.full((2, 3), 0.1), {"bias": np.ones(3)}, "fc/kernel, which is float64, would be"),
        (np.ones((2, 3)), {"bias": np.ones(3), "w": np.ones(1)}, "no entry of like= for fc/w"),
    ],
)
def test_errors_of_the_way_back(kernel, others, message):
    with pytest.raises(InputError, match=message):
        convert_back({"fc": {"kernel": kernel, **others}}, FC, LINEAR)
