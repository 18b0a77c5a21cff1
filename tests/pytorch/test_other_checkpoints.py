"""Checkpoints as people save them are read exactly."""

import collections

import numpy as np
import pytest

from rwp_jax.errors import InputError
from rwp_jax.models.classifier import make_classifier
from rwp_jax.pytorch import contents, export, import_, torch_files

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.numpy")
networks = pytest.importorskip("benchmarks.torch_networks")

from tests.pytorch.test_import import MODEL, assert_same_entries, config_of  # noqa: E402


def renamed(state, prefix):
    return {prefix + name: value for name, value in state.items()}


def as_numpy(state):
    return {name: value.numpy() for name, value in state.items()}


def changed(state):
    return {name: value + 1 for name, value in state.items()}


def optimizer_of():
    network = networks.Network(MODEL)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    network(torch.zeros(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


def madry(state):
    """As MadryLab's robustness saves it: the network, its attacked copy, and both normalisations."""
    mean_std = {"new_mean": torch.full((3, 1, 1), 0.5), "new_std": torch.full((3, 1, 1), 0.25)}
    wrapped = renamed(mean_std, "module.normalizer.") | renamed(state, "module.model.")
    wrapped |= renamed(mean_std, "module.attacker.normalize.")
    return wrapped | renamed(state, "module.attacker.model.")


# Contents for torch.save by name, with --torch_key where one is needed.
READ = {
    "plain": lambda s: (s, ""),
    "ordered": lambda s: (collections.OrderedDict(s), ""),
    "state_dict": lambda s: ({"state_dict": s, "epoch": 3}, ""),
    "model_state_dict": lambda s: ({"model_state_dict": s, "optimizer": optimizer_of()}, ""),
    "net": lambda s: ({"net": s, "acc": 93.1, "epoch": 199}, ""),
    "model": lambda s: ({"model": s, "optimizer": optimizer_of(), "args": {"lr": 0.1}}, ""),
    "network beside a tensor of losses": lambda s: ({"network": s, "loss": torch.ones(3)}, ""),
    "weights beside averaged ones": lambda s: ({"state_dict": s, "ema": changed(s)}, ""),
    "averaged weights": lambda s: ({"state_dict": changed(s), "ema": s}, "ema"),
    "one of two models": lambda s: ({"model": s, "model_best": changed(s)}, "model"),
    "nested twice": lambda s: ({"checkpoint": {"model": s}, "version": 2}, ""),
    "one of a dict of models": lambda s: ({"models": {"a": s, "b": changed(s)}}, "models.a"),
    "tuple": lambda s: ((s, optimizer_of(), 199), ""),
    "list": lambda s: ([{"epoch": 3}, s], ""),
    "one of a list": lambda s: ([changed(s), s], "1"),
    "module.": lambda s: (renamed(s, "module."), ""),
    "_orig_mod.": lambda s: ({"model": renamed(s, "_orig_mod.")}, ""),
    "_orig_mod.module.": lambda s: (renamed(s, "_orig_mod.module."), ""),
    "model. of Lightning": lambda s: (
        {"state_dict": renamed(s, "model."), "pytorch-lightning_version": "2.0", "loops": {}},
        "",
    ),
    "MadryLab": lambda s: ({"model": madry(s), "optimizer": optimizer_of(), "epoch": 3}, ""),
    "teacher and student": lambda s: (
        renamed(s, "student.") | renamed(changed(s), "teacher."),
        "student",
    ),
    "half precision": lambda s: ({n: v.half() for n, v in s.items()}, ""),
    "bfloat16": lambda s: ({n: v.bfloat16() for n, v in s.items()}, ""),
    "double precision": lambda s: ({n: v.double() for n, v in s.items()}, ""),
    "parameters": lambda s: (
        {n: torch.nn.Parameter(v) if v.is_floating_point() else v for n, v in s.items()},
        "",
    ),
    "NumPy": lambda s: (as_numpy(s), ""),
    "NumPy under a key": lambda s: ({"params": as_numpy(s), "acc": np.float64(93.1)}, ""),
    "views": lambda s: (
        {n: torch.stack([v, v])[0] for n, v in s.items()},
        "",
    ),
}


@pytest.fixture(scope="module")
def templates():
    params, batch_stats = make_classifier(MODEL, 10).shapes((8, 8, 3))
    return {"params": params, "batch_stats": batch_stats}


def check_exact(path, key, state, templates):
    entries, nested = torch_files.read_state_dict(path, key)
    parts = contents.split(entries, nested)
    contents.check_fit(path, parts, MODEL, templates)
    wanted = as_numpy(state)
    assert parts.network.keys() == {n for n in wanted if not n.endswith("num_batches_tracked")}
    for name, value in parts.network.items():
        rounding = {"half": 1e-3, "bfloat16": 1e-2}.get(path.stem, 0)
        np.testing.assert_allclose(value, wanted[name], rtol=rounding, atol=rounding * 1e-2)
    return parts


@pytest.mark.parametrize("name", READ)
def test_files_of_torch_save_are_read_exactly(name, state, templates, tmp_path):
    content, key = READ[name](state)
    path = tmp_path / f"{name.split()[0]}.pth"
    torch.save(content, path)
    parts = check_exact(path, key, state, templates)
    assert (parts.mean == (0.5,) * 3) == (name == "MadryLab")


WRITERS = {
    "old.pth": lambda s, p: torch.save(s, p, _use_new_zipfile_serialization=False),
    "numpy_old.pt": lambda s, p: torch.save(as_numpy(s), p, _use_new_zipfile_serialization=False),
    "name without a suffix": lambda s, p: torch.save(s, p),
    "weights.safetensors": lambda s, p: p.write_bytes(safetensors.save(as_numpy(s))),
    "pytorch_model.bin": lambda s, p: p.write_bytes(safetensors.save(as_numpy(s))),
    "module.safetensors": lambda s, p: p.write_bytes(
        safetensors.save(renamed(as_numpy(s), "module."))
    ),
    "weights.npz": lambda s, p: np.savez(p, **as_numpy(s)),
    "compressed.npz": lambda s, p: np.savez_compressed(p, **as_numpy(s)),
}


@pytest.mark.parametrize("name", WRITERS)
def test_other_files_are_read_exactly(name, state, templates, tmp_path):
    WRITERS[name](state, tmp_path / name)
    check_exact(tmp_path / name, "", state, templates)


def test_a_robustness_checkpoint_survives_the_round_trip(state, tmp_path):
    path, run = tmp_path / "in.pth", tmp_path / "run"
    torch.save({"model": madry(state), "epoch": 3}, path)
    import_.import_torch(config_of(dtype="float32"), run, path)
    export.export_torch(run, "last", tmp_path / "out.pth")
    exported = torch.load(tmp_path / "out.pth", weights_only=True)
    torch.save(exported["model"], tmp_path / "inner.pth")
    assert_same_entries(tmp_path / "inner.pth", madry(state))


def test_classes_and_channels_must_fit_the_data_at_import(tmp_path):
    path = tmp_path / "in.pth"
    torch.save(networks.Network(MODEL, num_classes=100).state_dict(), path)
    message = "3 channels and 100 classes, the data have 3 and 10 .config.data.name='cifar10'"
    with pytest.raises(InputError, match=message):
        import_.import_torch(config_of(**{"data.name": "cifar10"}), tmp_path / "run", path)
    assert not (tmp_path / "run").exists()
