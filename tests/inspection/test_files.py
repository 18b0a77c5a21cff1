"""What --mode inspect says of files of weights and data, sound and damaged."""

import pickle

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import serialization
from safetensors.numpy import save_file

from rwp_jax.errors import InputError
from rwp_jax.inspection.inspect import inspect
from rwp_jax.models.classifier import make_classifier
from tests.inspection.said import refused, said, unsound


@pytest.fixture(scope="module")
def network():
    classifier = make_classifier("wrn-10-1", 10)
    params, batch_stats = jax.device_get(classifier.init(jax.random.key(0), (8, 8, 3)))
    return {"params": params, "batch_stats": batch_stats}


def flat(tree, separator="/"):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    name = lambda path: jax.tree_util.keystr(path, simple=True, separator=separator)
    return {name(path): np.asarray(leaf) for path, leaf in leaves}


def orbax(tree, path):
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, tree)


@pytest.mark.parametrize(
    ("name", "write", "kind"),
    [
        ("a.msgpack", lambda v, p: p.write_bytes(serialization.to_bytes(v)), "a msgpack file of Flax"),
        ("a.npz", lambda v, p: np.savez(p, **flat(v)), "an npz"),
        ("a.safetensors", lambda v, p: save_file(flat(v, "."), p), "a safetensors file"),
        ("a.pkl", lambda v, p: p.write_bytes(pickle.dumps({"v": v})), "a pickle of NumPy arrays"),
        ("a", orbax, "a checkpoint of orbax"),
    ],
)  # fmt: skip
def test_networks_of_jax(name, write, kind, network, tmp_path, capsys):
    write(network, tmp_path / name)
    out = said(tmp_path / name, capsys)
    assert f": {kind}\n" in out and "wrn-10-1, 10 classes, images of 3 channels" in out
    command = f"--mode import --path {tmp_path / name} --config FILE --workdir DIR"
    assert f"{command} --config.model.name=wrn-10-1" in out


def test_other_networks_of_jax(network, tmp_path, capsys):
    path = tmp_path / "a.npz"
    np.savez(path, **{"net/w": np.ones((2, 2)), "net/b": np.ones(2)})
    out = said(path, capsys)
    assert "none of this package's networks" in out and "--name_map FILE" in out
    fewer = {n: v for n, v in flat(network).items() if n != "params/linear/bias"}
    np.savez(path, **fewer)
    assert "most similar to wrn-10-1, but params/linear/bias is missing" in said(path, capsys)
    np.savez(path, **flat({"a": network, "b": network}))
    assert "holds several networks, choose by --key: a, b" in said(path, capsys)
    assert "wrn-10-1, 10 classes" in said(path, capsys, key="b")
    np.savez(path, **fewer | {"params/linear/bias": np.full(10, np.nan)})
    unsound(path, capsys, "params/linear/bias has entries that are not finite")


def test_networks_of_pytorch(tmp_path, capsys):
    torch = pytest.importorskip("torch")
    networks = pytest.importorskip("benchmarks.torch_networks")
    module, path = networks.Network("wrn-10-1"), tmp_path / "a.pth"
    state = module.state_dict()
    norm = {"mu": torch.full((1, 3, 1, 1), 0.5), "sigma": torch.full((1, 3, 1, 1), 0.25)}
    torch.save({"model": {"module." + n: v for n, v in (state | norm).items()}}, path)
    out = said(path, capsys)
    assert "a file of torch.save" in out and "wrn-10-1, 10 classes, images of 3 channels" in out
    assert "by mean 0.5, 0.5, 0.5 and deviation 0.25, 0.25, 0.25" in out
    torch.save({"model": state, "ema": state | {"more": torch.ones(2, 2)}}, path)
    out = said(path, capsys)
    assert "network model" in out and "most similar to wrn-10-1, but more is unknown" in out
    assert f"--path {path} --key ema --config FILE" in out
    torch.save({n: v for n, v in state.items() if n != "fc.bias"}, path)
    assert "a WideResNet whose last layer has no bias" in said(path, capsys)
    torch.save(state | {"fc.bias": torch.full((10,), torch.inf)}, path)
    unsound(path, capsys, "fc.bias has entries that are not finite")
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    module(torch.zeros(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    torch.save(optimizer.state_dict(), path)
    assert "torch.optim.SGD with momentum of 25 parameters" in said(path, capsys)
    torch.save({"epoch": 3}, path)
    refused(path, "holds no state dict (epoch)")


X, Y = np.zeros((20, 8, 8, 1), np.uint8), np.arange(20) % 2
ROWS = np.zeros((20, 3072), np.uint8)
DATA = {
    "set.npz": (
        {"x_train": X, "y_train": Y, "x_test": X[:5], "y_test": Y[:5]},
        ["a data set", "uint8 [20, 8, 8, 1], 2 classes (0: 10, 1: 10)", "--config.data.name=npz"],
    ),
    "images.npz": ({"data": X}, ["images without labels", "--unlabeled "]),
    "named.npz": ({"images": X, "labels": Y}, ["under other names", "2 classes (0: 10, 1: 10)"]),
    "extra.npz": (
        {"data": X, "extrapolated_targets": Y - 1},
        ["extra images with pseudo-labels", "1 class (no label: 10, 0: 10)", "extra_data.path="],
    ),
    "extra.pickle": ({"data": X, "extrapolated_targets": Y.tolist()}, ["extra images", "0: 10"]),
    "data_batch_1": (
        {b"batch_label": b"1 of 5", b"labels": Y.tolist(), b"data": ROWS, b"filenames": [b"a.png"] * 20},
        ["a batch of CIFAR for Python", "20 of 32x32x3", "2 classes (0: 10, 1: 10)"],
    ),
    "train": (
        {b"fine_labels": (np.arange(20) * 5).tolist(), b"coarse_labels": Y.tolist(), b"data": ROWS},
        ["a batch of CIFAR for Python", "20 classes (0: 1, 5: 1, "],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DATA)
def test_data(name, tmp_path, capsys):
    arrays, texts = DATA[name]
    path = tmp_path / name
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        path.write_bytes(pickle.dumps(arrays, protocol=2))
    out = said(path, capsys)
    assert all(text in out for text in texts), out


def test_malformed_data(tmp_path, capsys):
    path = tmp_path / "set.npz"
    np.savez(path, x_train=X, y_train=Y * 3, x_test=X, y_test=Y)
    unsound(path, capsys, "y_train has label 3 but no example of class 1")
    np.savez(path, data=X, extrapolated_targets=Y - 5)
    unsound(path, capsys, "extrapolated_targets has label -5")


def test_corruptions(tmp_path, capsys):
    folder = tmp_path / "CIFAR-10-C"
    folder.mkdir()
    np.save(folder / "labels.npy", Y)
    refused(folder, "there is no NAME.npy of a corruption")
    for name in ("fog", "snow"):
        np.save(folder / f"{name}.npy", X)
    out = said(folder, capsys)
    assert "2: fog, snow" in out and "4 by severity" in out and f"--corruptions {folder}" in out
    np.save(folder / "snow.npy", X[:5])
    refused(folder, "snow.npy is uint8 (5, 8, 8, 1)")


def test_unknown_paths(tmp_path):
    refused(tmp_path / "none", "does not exist")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "that is known (it holds nothing)")
    np.savez(tmp_path / "verdicts.npz", verdicts=np.ones((3, 4), bool))
    refused(tmp_path / "verdicts.npz", "without weights or images (it holds verdicts bool [3, 4])")
    for name, content, message in (
        ("a.pth", b"<html>", "it is an HTML page"),
        ("a.txt", b"hello", "it is a text ('hello')"),
        ("a.bin", b"", "it is empty"),
        ("a.npz", b"PK\3\4", "cannot be read as an .npz file"),
        ("a.msgpack", b"\x81", "is no msgpack file of flax, or is cut short"),
        ("a.pkl", pickle.dumps(print), "asks for builtins.print, which is refused"),
    ):
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, message)


def test_a_network_of_the_package(capsys):
    inspect("zoo:digits_at")
    assert "wrn-10-2" in capsys.readouterr().out
    with pytest.raises(InputError, match="zoo:nothing is not in the zoo"):
        inspect("zoo:nothing")
