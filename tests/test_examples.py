"""The examples run, and what they train is robust to a degree."""

import importlib.util
import pathlib

import pytest

import rwp_jax

EXAMPLES = pathlib.Path(rwp_jax.__file__).parents[1] / "examples"


def load(name: str):
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["rwp_linen", "awp_nnx", "rwp_plain"])
def test_a_loop_of_ones_own(name, capsys):
    accuracy = load(name).main(epochs=4)
    assert accuracy > 0.2
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5 and "PGD-20" in lines[-1]
    taken = [int(line.split()[4]) for line in lines[:-1]]
    assert set(taken) == {1} if name == "awp_nnx" else max(taken) > 1
