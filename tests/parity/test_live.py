"""The live comparison with a stand-in for the authors' repository, tests/fixtures/checkout."""

import functools
import importlib.util
import pathlib
import shutil

import jax
import numpy as np
import pytest

from rwp_jax.errors import InputError
from rwp_jax.parity import inputs
from rwp_jax.parity import run_cases as command
from rwp_jax.parity.live import checkout as files
from rwp_jax.parity.live import trace
from rwp_jax.parity.live.setting import Setting, all_settings

STAND_IN = pathlib.Path(__file__).parents[1] / "fixtures" / "checkout"
TOLERANCE = 1e-10


@pytest.fixture
def reference(tmp_path):
    """Copies the stand-in, adding RST's copies of TRADES's files, so that tests may change it."""
    directory = tmp_path / "checkout"
    shutil.copytree(STAND_IN, directory)
    for name in ("utils_awp.py", "utils_rwp.py"):
        shutil.copy(directory / files.TRADES / name, directory / files.RST)
    return directory


@pytest.fixture
def small_images(monkeypatch):
    """Uses 8x8 images, on which a step is fast, and a single PyTorch thread, since more do not help."""
    monkeypatch.setattr(inputs, "images", functools.partial(inputs.images, size=8))
    if importlib.util.find_spec("torch"):
        import torch

        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(threads)
    else:
        yield


def run(capsys, *arguments):
    code = command.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def change(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_at_equals_the_stand_in(reference, small_images, capsys, tmp_path):
    pytest.importorskip("torch")
    output = tmp_path / "table.md"
    wanted = ("--only", "at_*_wrn-10-1_*", "--steps", 2, "--output", output)
    code, out, err = run(capsys, "--reference", reference, *wanted)
    assert code == 0, out + err
    lines = out.splitlines()
    assert "6 settings, 0 failed" in lines[-2]
    # Six quantities per setting: logits, delta, loss, weights, momentum and statistics; v in four
    # settings, gates in two.
    assert sum(line.endswith("  pass") for line in lines) == 6 * 6 + 4 + 2
    gates = [line.split()[2:12] for line in lines if line.startswith("gate counts")]
    assert len(gates) == 2 and any(len(set(counts)) > 1 for counts in gates)
    text = output.read_text()
    assert text.count("## at_") == 6 and text.count("| pass |") == 6 * 6 + 4 + 2


@pytest.mark.slow
def test_trades_and_rst(reference, small_images, capsys):
    pytest.importorskip("torch")
    names = "trades_awp_wrn-10-1_*,rst_none_*,rst_awp_*"
    code, out, err = run(capsys, "--reference", reference, "--steps", 1, "--only", names)
    assert code == 0, out + err
    assert "4 settings, 0 failed" in out
    assert out.count("  pass") == 4 * 6 + 3


def test_what_upstream_cannot_run(reference, small_images, capsys):
    pytest.importorskip("torch")
    wanted = ("--only", "trades_rwp_wrn-10-1_l_inf", "--steps", 1)
    code, out, err = run(capsys, "--reference", reference, *wanted)
    assert code == 0, out + err
    assert "1 settings, 0 failed, 1 that upstream cannot run" in out
    assert "upstream stops: RuntimeError: The size of tensor a (8) must match" in out
    (loss,) = [line.split() for line in out.splitlines() if line.startswith("loss")]
    assert loss[1] == "-" and 0 < float(loss[2]) < 10 and loss[-1] == "-"


@pytest.mark.parametrize("name", ["trades_awp_l_2", "rst_awp_l_inf", "rst_none_l_inf"])
def test_their_side_alone(reference, small_images, name):
    pytest.importorskip("torch")
    from rwp_jax.parity.live.torch_side import their_steps

    objective, perturbation, norm = name.split("_", 2)
    setting = Setting(objective, perturbation, "wrn-10-1", norm, 2)
    before, *steps = their_steps(files.read_checkout(reference), setting, "cpu", "float64")
    assert before.keys() == {"logits"} and len(steps) == 2
    for s, step in enumerate(steps):
        assert list(step["delta"]) == [str(k) for k in range(11)]
        start = setting.draws(s).start
        np.testing.assert_allclose(step["delta"]["0"], start, atol=1e-15)
        assert len(step["weights"]) == len(step["momentum"]) == 25
        assert len(step["statistics"]) == 14, "nothing of sub_block1, no counter"
        assert bool(step["v"]) == (perturbation == "awp")
    assert not np.array_equal(before["logits"]["0"], steps[0]["logits"]["0"])


@pytest.mark.parametrize(
    "path, old, new, quantity",
    [
        ("train_cifar10.py", "delta + alpha * g", "delta + 1.001 * alpha * g", "attack delta"),
        ("utils_rwp.py", "losses < LSC_loss", "losses < LSC_loss - 1", "gate counts"),
        ("utils_rwp.py", "scale = norm(", "scale = 1.0001 * norm(", "v"),
        ("train_cifar10.py", "model(normalize(x + delta))  # its", "# its", "running statistics"),
    ],
)
def test_a_difference_fails(reference, small_images, capsys, path, old, new, quantity):
    pytest.importorskip("torch")
    change(reference / files.AT / path, old, new if "#" not in old else "pass  # its")
    wanted = ("--only", "at_rwp_wrn-10-1_l_inf", "--steps", 1)
    code, out, _ = run(capsys, "--reference", reference, *wanted)
    failed = [line for line in out.splitlines() if "  FAIL: " in line]
    assert code == 1 and "1 settings, 1 failed" in out
    assert any(line.startswith(quantity) for line in failed), out


def test_an_error_in_code_that_should_run_is_a_failure(reference, small_images, capsys):
    pytest.importorskip("torch")
    change(reference / files.AT / "train_cifar10.py", "assert restarts == 1", "assert not restarts")
    wanted = ("--only", "at_none_wrn-10-1_l_inf", "--steps", 1)
    code, out, _ = run(capsys, "--reference", reference, *wanted)
    assert code == 1 and "upstream stops: AssertionError" in out and "  FAIL" in out


def test_float32_is_float32(small_images):
    """float32 stays float32 although tests enable jax_enable_x64."""
    from rwp_jax.parity.live.jax_side import our_steps

    setting = Setting("at", "rwp", "wrn-10-1", "l_2", 1)
    for dtype in ("float32", "float64"):
        (_, step) = our_steps(setting, dtype)
        arrays = [
            array
            for quantity in ("logits", "delta", "loss", "weights", "momentum", "statistics")
            for array in step[quantity].values()
        ]
        assert {array.dtype for array in arrays} == {np.dtype(dtype)}
    assert jax.numpy.ones(()).dtype == np.float64, "the flag is as it was"


def test_checkouts_that_are_none(reference, tmp_path, capsys):
    pytest.importorskip("torch")
    code, _, err = run(capsys, "--reference", tmp_path / "nothing")
    assert code == 2 and len(err.splitlines()) == 1 and "nothing is not a directory" in err
    code, _, err = run(capsys, "--reference", tmp_path)
    assert code == 2 and len(err.splitlines()) == 1 and "is not a checkout of github.com" in err
    assert f"it lacks {files.AT}/utils.py and 14 more" in err

    (reference / files.AT / "utils_rwp.py").write_text("import nothing_of_this_name")
    code, _, err = run(capsys, "--reference", reference)
    assert code == 2 and "cannot be loaded: ModuleNotFoundError" in err

    shutil.copy(STAND_IN / files.AT / "utils_rwp.py", reference / files.AT)
    change(reference / files.AT_SCRIPT, "def attack_pgd", "def attack")
    code, _, err = run(capsys, "--reference", reference)
    assert code == 2 and "train_cifar10.py does not define attack_pgd" in err
    assert not list(reference.rglob("*.pyc")), "the checkout is left alone"


def test_bad_input(reference, tmp_path, capsys, monkeypatch):
    def message(*arguments):
        code, out, err = run(capsys, *arguments)
        assert code == 2 and not out and len(err.splitlines()) == 1, (out, err)
        return err

    live = ("--reference", reference)
    assert "one of --cases DIR and --reference" in message()
    assert "one of --cases DIR and --reference" in message(*live, "--cases", tmp_path)
    assert "--steps goes with --reference" in message("--cases", tmp_path, "--steps", 3)
    assert "--steps=0 must be at least 1" in message(*live, "--steps", 0)
    assert "--only=none*: " in message(*live, "--only", "none*")
    assert "must end in .md or .html" in message(*live, "--output", tmp_path / "table.pdf")
    assert "there is no directory" in message(*live, "--output", tmp_path / "no" / "table.md")
    (tmp_path / "there.md").touch()
    assert "already exists" in message(*live, "--output", tmp_path / "there.md")
    monkeypatch.setattr("os.access", lambda *_: False)
    assert "no permission to write" in message(*live, "--output", tmp_path / "table.md")
    monkeypatch.undo()
    find = importlib.util.find_spec
    without = lambda name, *args: None if name == "torch" else find(name, *args)
    monkeypatch.setattr(importlib.util, "find_spec", without)
    assert "pip install torch" in message(*live)


def test_cuda_that_is_not_there(reference, capsys, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    code, _, err = run(capsys, "--reference", reference, "--device", "cuda")
    assert code == 2 and "--device=cuda: PyTorch finds no CUDA here" in err


def test_settings():
    names = [setting.name for setting in all_settings()]
    assert len(set(names)) == len(names)
    assert {name for name in names if name.startswith("at_")} == {
        f"at_{perturbation}_{model}_{norm}"
        for perturbation in ("none", "awp", "rwp")
        for model in ("wrn-10-1", "preactresnet18")
        for norm in ("l_inf", "l_2")
    }
    assert {setting.steps for setting in all_settings(5)} == {5}


def test_random_numbers_make_the_start():
    """The authors' formula turns `random` into `start`."""
    draws = Setting("at", "none", "wrn-10-1", "l_2", 1).draws(0)
    z, radius = (values.transpose(0, 2, 3, 1) for values in draws.random)
    delta = z * radius * (128 / 255) / np.sqrt((z**2).sum((1, 2, 3), keepdims=True))
    np.testing.assert_allclose(np.clip(delta, -draws.x, 1 - draws.x), draws.start, atol=1e-15)
    draws = Setting("trades", "none", "wrn-10-1", "l_2", 1).draws(0)
    (z,) = draws.random
    np.testing.assert_array_equal(0.001 * z.transpose(0, 2, 3, 1), draws.start)


def test_distances():
    theirs = {"a": np.array([3.0, 0.0]), "b": np.array([[4.0]])}
    ours = {"a": np.array([3.0, 0.5]), "b": np.array([[4.0]])}
    assert trace.relative_distance(ours, theirs) == pytest.approx(0.1)
    assert trace.relative_distance({"a": np.ones(1)}, {"a": np.zeros(1)}) == 1
    assert len(trace.thinned(np.zeros((100, 100)))) <= trace.KEPT
    np.testing.assert_array_equal(trace.thinned(np.arange(6).reshape(2, 3)), np.arange(6))


def compared(**changes):
    pytest.importorskip("torch")
    from rwp_jax.parity.live.both_sides import Compared, QuantityRow

    line = QuantityRow(
        "v", "1.25", "1.25", 2e-12, "3 conv1.weight, step 2", [1e-4, 2e-3], [1e-4, 3e-3]
    )
    setting = Setting("at", "rwp", "wrn-10-1", "l_inf", 2)
    held = {"setting": setting, "lines": [line], "stopped": "", "tolerance": TOLERANCE}
    held["growth"] = {"delta": [5e-8, 2e-2]}
    if "error" in changes:
        held["lines"] = [line._replace(error=changes.pop("error"))]
    return Compared(**(held | changes))


def test_tables_say_the_same():
    good = compared()
    bad, nan = compared(error=2e-10), compared(error=float("nan"))
    assert not good.failed and bad.failed and nan.failed
    from rwp_jax.parity.live import render

    text = render.text(bad, 3).splitlines()
    assert text[0] == "at_rwp_wrn-10-1_l_inf: 2 steps of 8 images"
    header = render.text_header(3)
    for column in ("upstream", "float64"):
        end = header.index(column) + len(column)
        assert text[1][end - 1] != " " and text[1][end] == " ", (
            "figures end below their column's name"
        )
    row = ["v", "1.25", "1.25", "2e-10", "1e-04 2e-03", "1e-04 3e-03"]
    assert text[1].split("  ")[-1] == "FAIL: 3 conv1.weight, step 2"
    assert text[2] == "float32 in step 1, attack delta by step: 5e-08 2e-02"
    assert f"| {' | '.join(row)} | FAIL: 3 conv1.weight, step 2 |" in render.markdown(
        [bad], "about"
    )
    first, second = render.sections([good, bad])
    assert first.tables[0].rows[0][-1] == "pass"
    assert second.tables[0].rows[0][-1] == "FAIL: 3 conv1.weight, step 2"


def test_a_stopped_setting_fails_unless_it_is_known():
    rwp = Setting("trades", "rwp", "wrn-10-1", "l_inf", 2)
    assert compared(stopped="RuntimeError: x").failed
    assert not compared(stopped="RuntimeError: x", setting=rwp).failed


def test_definitions_only(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(
        "import nothing_of_this_name\na, b = 1, 2\nc = 3\n\ndef f():\n    return a + g\n"
    )
    code = files._definitions(path, ("b", "f"))
    held = files.Checkout({}, {"script.py": code}).defined("script.py", g=10)
    assert held["f"]() == 11 and "c" not in held
    with pytest.raises(InputError, match="does not define h"):
        files._definitions(path, ("h",))
