"""Networks as other programs in JAX save them are read bit for bit."""

import json
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import serialization, traverse_util
from flax.training.train_state import TrainState
from optax import sgd
from safetensors.numpy import save_file

from rwp_jax.importing import array_files, name_map
from rwp_jax.importing.import_ import fit, locate
from tests.importing.conftest import MODEL


def flat(tree, separator="/"):
    return traverse_util.flatten_dict(tree, sep=separator)


def msgpack(make):
    return lambda v, path: path.write_bytes(serialization.msgpack_serialize(make(v)))


def dumped(make):
    return lambda v, path: path.write_bytes(pickle.dumps(make(v)))


def npz(make):
    return lambda v, path: np.savez(path, **make(v))


def orbax(make, **options):
    def write(v, path):
        with ocp.PyTreeCheckpointer(**options) as checkpointer:
            checkpointer.save(path, make(v))

    return write


def standard(v, path):
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, state_of(v))


def managed(v, path):
    with ocp.CheckpointManager(path) as manager:
        manager.save(7, args=ocp.args.Composite(state=ocp.args.StandardSave(v)))
        manager.wait_until_finished()


def npy(make):
    def write(v, path):
        for name, value in make(v).items():
            file = path / f"{name}.npy"
            file.parent.mkdir(parents=True, exist_ok=True)
            np.save(file, value)

    return write


class State(TrainState):
    batch_stats: dict


def state_of(v):
    return State.create(
        apply_fn=None, params=v["params"], tx=sgd(0.1, 0.9), batch_stats=v["batch_stats"]
    )


def other(v):
    return jax.tree.map(lambda leaf: leaf + 1, v)


def by_path(v):
    return {
        jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(v)
    }


def values(v):
    """As nnx saves it: parameters and statistics of a module together, each below `value`."""
    merged = flat(v["params"]) | flat(v["batch_stats"])
    return traverse_util.unflatten_dict(
        {f"{name}/value": leaf for name, leaf in merged.items()}, "/"
    )


FORMS = {  # name of the file: (writer, key)
    "variables.msgpack": (msgpack(lambda v: v), ""),
    "to_bytes": (lambda v, p: p.write_bytes(serialization.to_bytes(v)), ""),
    "state.msgpack": (lambda v, p: p.write_bytes(serialization.to_bytes(state_of(v))), ""),
    "nested.flax": (msgpack(lambda v: {"epoch": 3, "model": v, "opt": other(v)}), ""),
    "ema.msgpack": (msgpack(lambda v: {**other(v), "step": 1, "ema": v}), "ema"),
    "one_of_two": (msgpack(lambda v: {"student": v, "teacher": other(v)}), "student"),
    "under_params": (msgpack(lambda v: {"params": v}), ""),
    "opt_of_variables": (msgpack(lambda v: {"model": v, "opt_state": {"mu": other(v)}}), ""),
    "bare.npz": (npz(lambda v: flat(v["params"]) | flat(v["batch_stats"])), ""),
    "slashes.npz": (npz(flat), ""),
    "dots.npz": (npz(lambda v: flat(v, ".")), ""),
    "by_path.npz": (npz(by_path), ""),
    "of_attributes.npz": (npz(lambda v: {f".{k[2:k.index(']') - 1]}{k[k.index(']') + 1:]}": x
                                         for k, x in by_path(v).items()}), ""),
    "half.npz": (npz(lambda v: flat(jax.tree.map(np.float16, v))), ""),
    "bfloat16.npz": (npz(lambda v: flat(jax.tree.map(lambda x: x.astype(jnp.bfloat16), v))), ""),
    "double.npz": (npz(lambda v: flat(jax.tree.map(np.float64, v))), ""),
    "slashes.safetensors": (lambda v, p: save_file(flat(v), p), ""),
    "dots.safetensors": (lambda v, p: save_file(flat(v, "."), p), ""),
    "tree.pkl": (dumped(lambda v: {"step": 3, "variables": v}), ""),
    "list.pkl": (dumped(lambda v: [other(v), v]), "1"),
    "npy in directories": (npy(flat), ""),
    "npy with dots": (npy(lambda v: flat(v, ".")), ""),
    "npy of a part": (npy(lambda v: flat({"best": v, "last": other(v)})), "best"),
    "StandardCheckpointer": (standard, ""),
    "PyTreeCheckpointer": (orbax(lambda v: {"name": "x", "epoch": 1, "model": [v]}), ""),
    "PyTreeCheckpointer without OCDBT": (orbax(lambda v: v, use_ocdbt=False), ""),
    "nnx": (orbax(values), ""),
}  # fmt: skip


def read(path, templates, key="", names=None):
    entries = array_files.read(path, array_files.kind_of(path))
    mapped = name_map.read_name_map(names) if names else None
    return fit(path, locate(path, entries, mapped, key), MODEL, templates)


def assert_equal(trees, wanted):
    assert jax.tree.structure(trees) == jax.tree.structure(wanted)
    for found, leaf in zip(jax.tree.leaves(trees), jax.tree.leaves(wanted), strict=True):
        assert found.dtype == leaf.dtype
        np.testing.assert_array_equal(found, leaf)


@pytest.mark.parametrize("name", FORMS)
def test_forms(name, variables, templates, tmp_path):
    write, key = FORMS[name]
    write(variables, tmp_path / name)
    dtype = {"half.npz": np.float16, "bfloat16.npz": jnp.bfloat16}.get(name, np.float32)
    expected = jax.tree.map(lambda leaf: leaf.astype(dtype).astype(np.float32), variables)
    found = read(tmp_path / name, templates, key)
    assert_equal(found.trees, expected)
    assert found.transposed == 0 and found.rounded == []


@pytest.mark.parametrize("part", ["7", "7/state"])
def test_a_checkpoint_of_a_manager(part, variables, templates, tmp_path):
    managed(variables, tmp_path / "manager")
    assert_equal(read(tmp_path / "manager" / part, templates).trees, variables)


def test_rounding_is_said(variables, templates, tmp_path):
    tree = jax.tree.map(lambda leaf: leaf.astype(np.float64) + 1e-12, variables)
    np.savez(tmp_path / "net.npz", **flat(tree))
    found = read(tmp_path / "net.npz", templates)
    assert_equal(found.trees, jax.tree.map(np.float32, tree))
    assert found.rounded == ["float64"]


def test_kernels_of_pytorchs_layout_are_told_by_their_shapes(variables, templates, tmp_path):
    axes = {4: (3, 2, 0, 1), 2: (1, 0)}
    turned = lambda leaf: leaf.transpose(axes.get(leaf.ndim, range(leaf.ndim)))
    np.savez(tmp_path / "net.npz", **flat(jax.tree.map(turned, variables)))
    found = read(tmp_path / "net.npz", templates)
    assert_equal(found.trees, variables)
    assert found.transposed == 10
    # A single one of them, whose shape fits only so.
    mixed = flat(variables)
    mixed["params/linear/kernel"] = mixed["params/linear/kernel"].T
    np.savez(tmp_path / "mixed.npz", **mixed)
    found = read(tmp_path / "mixed.npz", templates)
    assert_equal(found.trees, variables)
    assert found.transposed == 1


def haiku(v):
    """Names of another library: `wide/~/block1_0~conv1` and w, b, gamma, beta, mean, variance."""
    leaves = {"kernel": "w", "bias": "b", "scale": "gamma", "mean": "average", "var": "variance"}
    names = {}
    for name in flat(v):
        _, *modules, leaf = name.split("/")
        names[f"wide/~/{'~'.join(modules)}/{leaves[leaf]}"] = name
    return {foreign: flat(v)[name] for foreign, name in names.items()}, names


def test_a_map_of_names(variables, templates, tmp_path):
    entries, names = haiku(variables)
    entries["wide/~/linear/w"] = entries["wide/~/linear/w"].T
    names["wide/~/linear/w"] = {"path": "params/linear/kernel", "axes": [1, 0]}
    entries["ema/w"], entries["rng"] = np.zeros(3), np.zeros(2, np.uint32)
    names |= {"ema/": None, "rng": None}
    np.savez(tmp_path / "net.npz", **entries)
    (tmp_path / "names.json").write_text(json.dumps(names))
    found = read(tmp_path / "net.npz", templates, names=tmp_path / "names.json")
    assert_equal(found.trees, variables)


def test_a_map_of_the_beginnings_of_names(variables, templates, tmp_path):
    path = tmp_path / "net.msgpack"
    content = {"net": variables["params"], "state": {"bn": variables["batch_stats"]}, "lr": 0.1}
    path.write_bytes(serialization.msgpack_serialize(content))
    names = {"net/": "params", "state/bn/": "batch_stats/"}
    (tmp_path / "names.json").write_text(json.dumps(names))
    assert_equal(read(path, templates, names=tmp_path / "names.json").trees, variables)
