"""Maps of names and layouts of kernels: mistakes are refused, and what is ambiguous."""

import jax
import numpy as np
import pytest
from flax import traverse_util

from rwp_jax.errors import InputError
from rwp_jax.importing import array_files, name_map
from rwp_jax.importing.import_ import fit, locate
from tests.importing.conftest import MODEL


def flat(tree):
    return traverse_util.flatten_dict(tree, sep="/")


MAPS = {  # content of the file: part of the message
    "{": "is no readable JSON",
    "[]": "must be a JSON object of names",
    "{}": "must be a JSON object of names",
    '{"a": null, "a": null}': "'a' is there twice",
    '{"a": 3}': "'a' is 3, must be a path such as",
    '{"a": {"path": "b"}}': "'a' is {'path': 'b'}, must be a path",
    '{"a": {"path": "b", "axes": [0, 0]}}': "'a' has axes [0, 0], must be an order of the axes",
    '{"a/": {"path": "b", "axes": [0, 1]}}': "'a/' has axes [0, 1]",
    '{"params/conv1/kernal": null}': "'params/conv1/kernal' is not in the file: did you mean "
    "'params/conv1/kernel'?",
    '{"net/": "params/"}': "'net/' is not in the file: it holds ",
    '{"params/conv1/kernel": {"path": "x", "axes": [1, 0]}}': "its axes are [1, 0]",
    '{"params/bn/bias": "params/bn/scale"}': "both become 'params/bn/scale'",
    '{"params/bn/bias": null}': "params/bn/bias is missing",
    '{"params/bn/bias": "params/bn/shift"}': "params/bn/shift is unknown",
}


@pytest.mark.parametrize("content", MAPS)
def test_maps_are_refused(content, variables, templates, tmp_path):
    path, names = tmp_path / "net.npz", tmp_path / "names.json"
    np.savez(path, **flat(variables))
    names.write_text(content)
    with pytest.raises(InputError) as error:
        entries = array_files.read(path, array_files.kind_of(path))
        fit(path, locate(path, entries, name_map.read_name_map(names)), MODEL, templates)
    assert MAPS[content] in str(error.value) and "\n" not in str(error.value)


def test_a_square_kernel_among_kernels_of_both_layouts(tmp_path):
    leaf = lambda *shape: jax.ShapeDtypeStruct(shape, np.float32)
    templates = {"params": {name: {"kernel": leaf(*s)} for name, s in
                            {"a": (2, 3), "b": (4, 5), "c": (3, 3)}.items()}}  # fmt: skip
    rng = np.random.default_rng(0)
    tree = jax.tree.map(lambda t: rng.random(t.shape, np.float32), templates)
    entries = flat(tree) | {"params/a/kernel": tree["params"]["a"]["kernel"].T}
    with pytest.raises(InputError, match="has params/c/kernel of .3, 3., which fits as it is and"):
        fit(tmp_path, locate(tmp_path, entries), "mine", templates)
    for axes in ([0, 1], [1, 0]):
        target = {"params/c/kernel": name_map.Target("params/c/kernel", tuple(axes))}
        found = fit(tmp_path, locate(tmp_path, entries, target), "mine", templates).trees["params"]
        np.testing.assert_array_equal(
            found["c"]["kernel"], tree["params"]["c"]["kernel"].transpose(axes)
        )
        np.testing.assert_array_equal(found["a"]["kernel"], tree["params"]["a"]["kernel"])
    # Among kernels of one layout it is taken as they are.
    entries["params/b/kernel"] = entries["params/b/kernel"].T
    found = fit(tmp_path, locate(tmp_path, entries), "mine", templates)
    np.testing.assert_array_equal(
        found.trees["params"]["c"]["kernel"], tree["params"]["c"]["kernel"].T
    )
    assert found.transposed == 3
