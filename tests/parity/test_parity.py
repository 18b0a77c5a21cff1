import json
import pathlib
import shutil

import numpy as np
import pytest

from rwp_jax.errors import InputError
from rwp_jax.parity import inputs
from rwp_jax.parity import run_cases as command
from rwp_jax.parity.agreement import Row, compare, relative_error, table
from rwp_jax.parity.case import read_settings
from rwp_jax.parity.cases import RUNNERS, digest, kind_of

CASES = pathlib.Path(__file__).parents[1] / "fixtures" / "parity"
SETTINGS = read_settings(CASES)
# Cases that run by default; the others are slow. `python -m rwp_jax.parity`, as in .ci/run, runs all.
FAST = (
    "attack_wrn-10-1_l_2_train",
    "attack_wrn-10-1_l_inf_eval",
    "awp_wrn-10-1",
    "eval_fgsm",
    "eval_pgd20",
    "forward_dm-wrn-10-1_relu",
    "forward_dm-wrn-16-2",
    "forward_preactresnet18",
    "forward_wrn-10-1",
    "forward_wrn-16-2",
    "rwp_wrn-10-1_half",
    "step_at_rwp_wrn-10-1_l_inf",
    "step_rst_rwp_wrn-10-1_l_inf",
    "step_trades_none_wrn-10-1_l_2",
    "step_trades_rwp_wrn-10-1_l_inf",
)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in SETTINGS],
)
def test_equals_the_reference(name):
    row = command.run_case(CASES, name, SETTINGS[name])
    assert row.verdict == "pass", row
    assert row.arrays > 0 and row.error <= 1e-10


def test_every_kind_has_a_case():
    assert {kind_of(name) for name in SETTINGS} == set(RUNNERS)


@pytest.fixture
def one_case(tmp_path):
    """Returns (directory with one case, its name, a function that changes its arrays)."""
    name = "attack_wrn-10-1_l_inf_eval"
    shutil.copy(CASES / f"{name}.npz", tmp_path)
    (tmp_path / "cases.json").write_text(json.dumps({name: SETTINGS[name]}))

    def change(**arrays):
        path = tmp_path / f"{name}.npz"
        with np.load(path) as held:
            np.savez(path, **(dict(held) | arrays))

    return tmp_path, name, change


def run(directory, capsys, *more):
    code = command.main(["--cases", str(directory), *more])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_passes_and_a_changed_number_fails(one_case, capsys):
    directory, name, change = one_case
    code, out, _ = run(directory, capsys)
    assert code == 0 and "pass" in out and "1 cases, 0 failed" in out
    with np.load(directory / f"{name}.npz") as arrays:
        delta = arrays["delta3"].copy()
    delta[0, 0, 0, 0] += 1e-9
    change(delta3=delta)
    code, out, _ = run(directory, capsys)
    assert code == 1 and "FAIL: delta3" in out


def test_a_case_may_carry_its_own_images(one_case, capsys):
    directory, name, change = one_case
    change(x=inputs.images(4, 0))
    assert run(directory, capsys)[0] == 0
    change(x=inputs.images(4, 1))
    assert run(directory, capsys)[0] == 1, "the stored images must be the ones used"


def test_an_array_that_is_not_computed_is_a_failure(one_case, capsys):
    directory, _, change = one_case
    change(delta7=np.zeros((2, 32, 32, 3)))
    code, out, _ = run(directory, capsys)
    assert code == 1 and "nothing computed for delta7" in out


def failures(directory, capsys, **changes):
    """Returns what `forward_dm-wrn-10-1_relu` fails with after changes to its settings."""
    name = "forward_dm-wrn-10-1_relu"
    shutil.copyfile(CASES / f"{name}.npz", directory / f"{name}.npz")
    (directory / "cases.json").write_text(json.dumps({name: SETTINGS[name] | changes}))
    code, out, _ = run(directory, capsys)
    assert code == 1 and out.count("FAIL") == 1
    return out


def test_settings_that_are_not_understood_are_failures(tmp_path, capsys):
    out = failures(tmp_path, capsys, eps_bn=1e-3)
    assert "FAIL: unknown setting 'eps_bn', must be one of model, activation, " in out
    out = failures(tmp_path, capsys, activation="gelu")
    assert "FAIL: activation='gelu' must be relu or silu" in out
    assert "FAIL: logits_" in failures(tmp_path, capsys, activation="silu")


def test_entries_of_another_class_are_a_failure(tmp_path, capsys):
    keys = SETTINGS["forward_dm-wrn-10-1_relu"]["keys"]
    out = failures(
        tmp_path, capsys, keys=keys | {"layer.0.block.0.shortcut.weight": [16, 16, 1, 1]}
    )
    expected = (
        "entry layer.0.block.0.shortcut.weight is (16, 16, 1, 1) in the case's keys, missing in"
    )
    assert f"FAIL: {expected} dm-wrn-10-1" in out
    fewer = {name: shape for name, shape in keys.items() if name != "logits.bias"}
    assert "entry logits.bias is missing in the case's keys, (10,) in" in failures(
        tmp_path, capsys, keys=fewer
    )


def test_directories_that_are_none(tmp_path, capsys):
    code, _, err = run(tmp_path, capsys)
    assert code == 2 and len(err.splitlines()) == 1 and "cases.json" in err
    (tmp_path / "cases.json").write_text("{")
    assert run(tmp_path, capsys)[0] == 2
    (tmp_path / "cases.json").write_text('{"forward_a": {"model": "wrn-10-1", "n": 1}}')
    code, out, _ = run(tmp_path, capsys)
    assert code == 1 and "missing, or cut short" in out
    (tmp_path / "cases.json").write_text('{"something_a": {}}')
    code, out, _ = run(tmp_path, capsys)
    assert code == 1 and "unknown kind of case" in out
    assert run(CASES, capsys, "--only", "nothing*")[0] == 2


def test_relative_error():
    assert relative_error([1.0, 2.0], [1.0, 4.0]) == 0.5
    assert relative_error([0.25], [0.0]) == 0.25
    assert relative_error([1.0], [1.0, 1.0]) == np.inf
    assert relative_error([np.nan], [1.0]) == np.inf
    assert relative_error(np.zeros(0), np.zeros(0)) == 0


def test_compare_ignores_inputs_only():
    row = compare("c", {"a": [1.0]}, {"a": [1.0], "y": [3], "x0": [4]}, 1e-10)
    assert (row.arrays, row.verdict) == (1, "pass")
    assert compare("c", {}, {"y": [3]}, 1e-10).failed


def test_digest():
    array = np.arange(100.0).reshape(10, 10)
    entries = [0, 14, 28, 42, 56, 70, 84, 99]
    np.testing.assert_allclose(digest(array), [4950, np.sqrt((array**2).sum()), *entries])
    np.testing.assert_allclose(digest([3.0, 4.0]), [7, 5, 3, 4])


def test_table_is_aligned():
    rows = [Row("a", 3, 1e-12, 1e-10, "pass"), Row("longer", 0, np.nan, 1e-10, "FAIL: no file")]
    lines = table(rows).splitlines()
    assert lines[1].endswith("1.0e-12      1e-10  pass")
    assert lines[2].endswith("-          -  FAIL: no file")


def test_kinds():
    assert kind_of("eval_cw100") == "eval" and kind_of("step_rst_rwp_wrn-10-1") == "step_rst"
    with pytest.raises(InputError):
        kind_of("unknown_case")
