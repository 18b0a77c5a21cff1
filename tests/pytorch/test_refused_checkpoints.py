"""Files that hold no readable state dict are refused in one line that says what they are."""

import argparse
import gzip
import io
import json
import pathlib
import pickle
import tarfile
import types
import zipfile

import numpy as np
import pytest

from rwp_jax.errors import InputError
from rwp_jax.pytorch import contents, torch_files

torch = pytest.importorskip("torch")
networks = pytest.importorskip("benchmarks.torch_networks")

from tests.pytorch.test_import import MODEL  # noqa: E402
from tests.pytorch.test_other_checkpoints import as_numpy, changed, optimizer_of, renamed  # noqa: E402


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
