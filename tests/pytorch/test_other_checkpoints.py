"""Checkpoints as people save them: each is read exactly, or refused in a line that says what it is."""

import argparse
import collections
import gzip
import io
import json
import pathlib
import pickle
import tarfile
import types
import zipfile

import jax
import numpy as np
import pytest

from rwp_jax.errors import InputError
from rwp_jax.models.classifier import make_classifier
from rwp_jax.pytorch import contents, export, import_, torch_files

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.numpy")
networks = pytest.importorskip("benchmarks.torch_networks")

from tests.pytorch.test_import import assert_same_entries, config_of  # noqa: E402

MODEL, DEEPER = "wrn-10-1", "wrn-16-1"


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    return networks.Network(MODEL).state_dict()


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
    classifier = make_classifier(MODEL, 10)
    params, batch_stats = jax.eval_shape(
        lambda key: classifier.init(key, (8, 8, 3)), jax.random.key(0)
    )
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


class Settings:
    """An object of a training script."""


def write(content):
    """Returns a writer of these bytes."""
    return lambda state, path: path.write_bytes(content)


def save(make):
    """Returns a writer of torch.save."""
    return lambda state, path: torch.save(make(state), path)


def cut(state, path):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    path.write_bytes(buffer.getvalue()[:-2000])


def tar(state, path):
    with tarfile.open(path, "w") as archive:
        for name in ("model.pth", "log.txt"):
            archive.addfile(tarfile.TarInfo(name))


def tar_gz(state, path):
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("model.pth"))


def zip_of(*names):
    def writer(state, path):
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, "content")

    return writer


def script(state, path):
    torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)).save(path)


def save_module(state, path):
    torch.save(networks.Network(MODEL), path)


# Writers of files that are refused by name, with parts of the message.
REFUSED = {
    "Namespace.pth": (
        save(lambda s: {"state_dict": s, "args": argparse.Namespace(lr=0.1)}),
        "holds argparse.Namespace",
        "safe_globals([argparse.Namespace])",
    ),
    "old_namespace.pth": (
        lambda s, p: torch.save(
            {"state_dict": s, "args": argparse.Namespace()}, p, _use_new_zipfile_serialization=False
        ),
        "holds argparse.Namespace",
    ),
    "object.pth": (
        save(lambda s: {"state_dict": s, "settings": Settings()}),
        "Settings, and unpick",
    ),
    "path.pth": (save(lambda s: {"model": s, "file": pathlib.PurePosixPath("x")}), "pathlib"),
    "simple.pth": (
        save(lambda s: {"model": s, "args": types.SimpleNamespace()}),
        "SimpleNamespace",
    ),
    "module.pth": (save_module, "benchmarks.torch_networks.Network, and unpickling"),
    "object_array.pth": (
        save(lambda s: {"w": np.array([[Settings()]])}),
        "ObjectDType, and unpick",
    ),
    "protocol4.pth": (
        lambda s, p: torch.save(s, p, pickle_protocol=4),
        "another pickle_protocol than torch.save's default",
    ),
    "two.pth": (
        save(lambda s: {"model": s, "model_best": changed(s)}),
        "holds several state dicts, choose by torch_key=: model, model_best",
    ),
    "differ.pth": (
        save(lambda s: renamed(s, "student.") | renamed(changed(s), "teacher.")),
        "holds networks that differ, choose one by torch_key=: student., teacher.",
    ),
    "mixed.pth": (save(lambda s: s | {"epoch": 3}), "mixed with other entries (epoch)"),
    "optimizer.pth": (save(lambda s: optimizer_of()), "holds no state dict"),
    "tensor.pth": (save(lambda s: torch.zeros(3, 3)), "holds no state dict (Tensor)"),
    "number.pth": (save(lambda s: 3.0), "holds no state dict (float)"),
    "list.pth": (save(lambda s: list(s.values())), "holds no state dict"),
    "empty.pth": (write(b""), "it is empty"),
    "blank.pth": (write(b"\n\n"), "it is blank"),
    "html.pth": (write(b"<!DOCTYPE html>\n<html><title>Sign in</title>"), "it is an HTML page"),
    "xml.pth": (write(b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>'), "an XML"),
    "json.pth": (write(json.dumps({"error": "not found"}).encode()), "it is a JSON text"),
    "lfs.pth": (write(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "Git LFS"),
    "text.pth": (write(b"404: Not Found"), "it is a text ('404: Not Found')"),
    "gzip.pth": (lambda s, p: p.write_bytes(gzip.compress(b"x")), "compressed by gzip"),
    "tar.pth": (tar, "it is a tar archive (model.pth, log.txt): unpack it first"),
    "tar_gz.pth": (tar_gz, "it is a tar archive (model.pth)"),
    "zip.pth": (
        zip_of("a/model.pth", "a/README"),
        "a zip archive (a/model.pth, a/README), not one",
    ),
    "script.pth": (script, "it is a TorchScript archive"),
    "npz.pth": (lambda s, p: np.savez(p.open("wb"), **as_numpy(s)), "it is an npz of NumPy"),
    "npy.pth": (lambda s, p: np.save(p.open("wb"), np.zeros(3)), "a single array of NumPy"),
    "hdf5.pth": (write(b"\x89HDF\r\n\x1a\n" + bytes(64)), "it is an HDF5 file"),
    "cut.pth": (cut, "a zip archive that is cut short"),
    "pickle.pth": (
        lambda s, p: p.write_bytes(pickle.dumps({n: v.tolist() for n, v in s.items()})),
        "it is a file of pickle.dump",
    ),
    "torch.safetensors": (save(lambda s: s), "is not a safetensors file"),
    "html.safetensors": (write(b"<html>"), "is not a safetensors file (it is an HTML page"),
    "html.npz": (write(b"<html>"), "is no npz of arrays, or is damaged (it is an HTML page"),
    "objects.npz": (
        lambda s, p: np.savez(p, w=np.array([Settings()], object)),
        "is no npz of arrays, or is damaged",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_what_they_are(name, state, tmp_path):
    writer, *messages = REFUSED[name]
    path = tmp_path / name
    writer(state, path)
    with pytest.raises(InputError) as error:
        entries, nested = torch_files.read_state_dict(path)
        contents.split(entries, nested)
    text = str(error.value)
    assert all(message in text for message in messages) and "\n" not in text, text


def test_unknown_keys_are_answered_by_those_there(state, tmp_path):
    path = tmp_path / "two.pth"
    torch.save({"model": state, "ema": changed(state)}, path)
    with pytest.raises(InputError, match="no state dict torch_key=net: it has model, ema"):
        torch_files.read_state_dict(path, "net")


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
