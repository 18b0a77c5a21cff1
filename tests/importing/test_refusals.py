"""Foreign files that hold no network of the right form are refused in one line that says why."""

import json
import os
import pickle
import shutil
import zipfile

import jax
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import serialization, traverse_util

from rwp_jax.configs import digits_at_rwp
from rwp_jax.errors import InputError
from rwp_jax.importing import array_files
from rwp_jax.importing.import_ import fit, locate
from rwp_jax.pytorch.import_ import import_network
from tests.importing.conftest import MODEL
from tests.small import shrink


class Harmful:
    def __reduce__(self):
        return os.system, ("touch code_ran",)


def flat(tree):
    return traverse_util.flatten_dict(tree, sep="/")


def changed(**changes):
    """Writes the network as an npz with other entries; None removes one."""

    def write(v, path):
        entries = flat(v) | {name.replace("__", "/"): value for name, value in changes.items()}
        np.savez(path, **{name: value for name, value in entries.items() if value is not None})

    return write


def bytes_of(make):
    return lambda v, path: path.write_bytes(make(v))


def orbax(change, **options):
    def write(v, path):
        with ocp.PyTreeCheckpointer(**options) as checkpointer:
            checkpointer.save(path, v)
        change(path)

    return write


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cut_largest(path):
    cut(max((p for p in path.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size))


def huge(path):
    file = path / "params.linear.bias" / ".zarray"
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"shape": [4 * 10**13], "chunks": [4 * 10**13]}))


def header(text):
    return b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text.encode()


def several(path):
    for name in ("model", "ema"):
        shutil.copytree(path, path / name)
        (path / name / "_CHECKPOINT_METADATA").unlink()
    (path / "_METADATA").unlink()


def manager(v, path):
    with ocp.CheckpointManager(path) as checkpoints:
        for step in (1, 20):
            checkpoints.save(step, args=ocp.args.StandardSave({"params": {"w": np.ones(2)}}))
        checkpoints.wait_until_finished()


def npy_of(content):
    def write(v, path):
        path.mkdir()
        content(path)

    return write


KERNEL = "params/linear/kernel"
Chunks = {"__msgpack_chunked_array__": True, "shape": {"0": 9}, "chunks": {"0": np.zeros(3)}}
# Writers of files that are refused, with parts of the message.
REFUSED = {
    "missing.npz": (changed(params__linear__bias=None), "params/linear/bias is missing"),
    "unknown.npz": (
        changed(params__head__kernel=np.ones(3)),
        f"is not a {MODEL}: params/head/kernel is unknown",
    ),
    "shape.npz": (
        changed(params__conv1__kernel=np.ones((5, 5, 3, 16))),
        "params/conv1/kernel is [5, 5, 3, 16], must be [3, 3, 3, 16]",
    ),
    "many.npz": (
        lambda v, p: np.savez(p, **flat({"params": v["params"]})),
        "batch_stats/block1_0/bn1/mean is missing",
        "and 9 more",
    ),
    "nan.npz": (
        changed(params__linear__bias=np.full(10, np.nan)),
        "params/linear/bias has entries that are not finite in float32",
    ),
    "overflow.npz": (changed(params__linear__bias=np.full(10, 1e300)), "not finite in float32"),
    "negative.npz": (
        changed(batch_stats__bn__var=-np.ones(64)),
        "batch_stats/bn/var has negative entries",
    ),
    "complex.npz": (
        changed(params__linear__bias=np.ones(10, complex)),
        "params/linear/bias is complex128, must be an array of real numbers",
    ),
    "text.npz": (changed(params__linear__bias=np.array(["a"] * 10)), "is <U1, must be an array"),
    "object.npz": (
        lambda v, p: np.savez(p, w=np.array([Harmful()], object)),
        "is no npz of arrays, or is damaged",
    ),
    "two.msgpack": (
        bytes_of(lambda v: serialization.msgpack_serialize({"a": v, "b": v})),
        "holds several networks, choose by key=: a, b",
    ),
    "other names.msgpack": (
        bytes_of(lambda v: serialization.msgpack_serialize({"net": {"w": np.ones((2, 2))}})),
        "net/w is unknown",
        "its names are others",
    ),
    "numbers.msgpack": (
        bytes_of(lambda v: serialization.msgpack_serialize({"epoch": 3})),
        "params/block1_0/bn1/bias is missing",
    ),
    "no arrays.msgpack": (
        bytes_of(lambda v: serialization.msgpack_serialize({"name": "x"})),
        "has nothing at key=: it has nothing",
    ),
    "cut.msgpack": (
        bytes_of(lambda v: serialization.to_bytes(v)[:-1]),
        "is no msgpack file of flax, or is cut short",
    ),
    "html.msgpack": (bytes_of(lambda v: b"<html>"), "no msgpack file", "it is an HTML page"),
    "lfs.msgpack": (
        bytes_of(lambda v: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        "a pointer of Git LFS",
    ),
    "empty.msgpack": (bytes_of(lambda v: b""), "it is empty"),
    "chunks.msgpack": (
        bytes_of(lambda v: serialization.msgpack.packb({"w": Chunks}, default=str)),
        "is no msgpack file of flax",
    ),
    "objects.msgpack": (
        bytes_of(
            lambda v: serialization.msgpack.packb(
                {"w": serialization.msgpack.ExtType(1, serialization.msgpack.packb([[1], "O", b"\0" * 8]))}
            )
        ),
        "is no msgpack file of flax",
    ),
    "harmful.pkl": (bytes_of(lambda v: pickle.dumps({"w": Harmful()})), "asks for posix.system"),
    "jax arrays.pkl": (
        bytes_of(lambda v: pickle.dumps({"w": jax.numpy.ones(2)})),
        "the pickle asks for jax",
    ),
    "bfloat16.pkl": (
        bytes_of(lambda v: pickle.dumps({"w": np.ones(2, ml_dtypes.bfloat16)})),
        "the pickle asks for ml_dtypes.bfloat16",
    ),
    "cut.pkl": (bytes_of(lambda v: pickle.dumps(v)[:-20]), "is a damaged pickle"),
    "cut.safetensors": (
        bytes_of(lambda v: b"\x40\0\0\0\0\0\0\0" + b'{"w":{"dtype":"F32"'),
        "is not a safetensors file",
    ),
    "cut array": (npy_of(lambda p: (np.save(p / "w.npy", np.ones(99)), cut(p / "w.npy"))), "w.npy is no"),
    "pickled array": (
        npy_of(lambda p: np.save(p / "w.npy", np.array([Harmful()]), allow_pickle=True)),
        "w.npy is no .npy file",
    ),
    "twice.npz": (
        lambda v, p: np.savez(p.open("wb"), **{".a['b']": np.ones(2), "['a']['b']": np.ones(2)}),
        "holds two entries named a/b",
    ),
    "manager": (manager, "holds checkpoints of steps 1, 20: name one of them"),
    "several trees": (orbax(several), "holds several trees (ema, model): name one"),
    "cut orbax": (orbax(cut_largest), "cannot be read by orbax"),
    "no data": (orbax(lambda p: shutil.rmtree(p / "d")), "cannot be read by orbax"),
    "cut metadata": (orbax(lambda p: cut(p / "_METADATA")), "cannot be read by orbax"),
    "huge": (
        orbax(huge, use_ocdbt=False),
        "cannot be read by orbax (its arrays have 160,000 GB, this machine",
    ),
    "huge.npz": (
        lambda v, p: zipfile.ZipFile(p, "w").writestr(
            "w.npy", header("{'descr': '<f4', 'fortran_order': False, 'shape': (9999999, 9999999)}")
        ),
        "is no npz of arrays, or is damaged",
    ),
    "w.orbax-checkpoint-tmp": (orbax(lambda p: None), "whose save was cut short"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_what_they_are(name, variables, templates, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    writer, *messages = REFUSED[name]
    path = tmp_path / name
    writer(variables, path)
    with pytest.raises(InputError) as error:
        entries = array_files.read(path, array_files.kind_of(path))
        fit(path, locate(path, entries), MODEL, templates)
    text = str(error.value)
    assert all(message in text for message in messages) and "\n" not in text, text
    assert str(path) in text and len(text) < 600
    assert not (tmp_path / "code_ran").exists() and "Traceback" not in capfd.readouterr().err


def test_refusals_of_the_import(variables, tmp_path):
    path, run = tmp_path / "net.npz", tmp_path / "run"
    np.savez(path, **flat(variables))
    named = {"data.name": "cifar10", "model.name": MODEL, "dtype": "float32"}

    def refused(message, *arguments, **changes):
        config = shrink(digits_at_rwp.get_config(), **named | changes)
        with pytest.raises(InputError, match=message) as error:
            import_network(config, run, *arguments)
        assert not run.exists() and "\n" not in str(error.value)

    refused("path=.*none is not a file or directory", tmp_path / "none")
    (tmp_path / "empty").mkdir()
    refused("is no checkpoint of orbax or directory of .npy", tmp_path / "empty")
    refused("torch_optimizer=.* is for PyTorch checkpoints", path, path)
    refused(r"epoch=3 must be in \[1, config.epochs=2\]", path, None, 3)
    refused("has nothing at key=ema: it has .*params", path, None, 0, "ema")
    refused("name_map=.*none.json is no readable JSON", path, None, 0, "", tmp_path / "none.json")
    refused("most similar network: wrn-10-1", path, **{"model.name": "wrn-16-1"})
    refused("3 channels and 10 classes, the data have 1 and 10", path, **{"data.name": "digits"})
    (tmp_path / "names.json").write_text(json.dumps({"params/": "weights/"}))
    refused("weights/.* is unknown", path, None, 0, "", tmp_path / "names.json")
    held = tmp_path / "held"
    held.mkdir()
    (held / "config.json").write_text("{}")
    refused("is a run already: evaluate it by workdir=", held)


def test_hidden_folders_are_no_part_of_a_directory(tmp_path):
    """A clone with a virtual environment is no directory of .npy files."""
    (tmp_path / ".venv/lib").mkdir(parents=True)
    np.save(tmp_path / ".venv/lib/x.npy", np.ones(2))
    assert array_files.kind_of(tmp_path) == ""
    np.save(tmp_path / "y.npy", np.ones(2))
    assert array_files.read(tmp_path, array_files.kind_of(tmp_path)).keys() == {"y"}
