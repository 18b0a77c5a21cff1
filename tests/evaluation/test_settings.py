"""Evaluations of a run under other threat models and on other images than its config's."""

import json
import sys

import numpy as np
import pytest

from rwp_jax.attacks.autoattack import suite
from rwp_jax.command_line import modes, parsing
from rwp_jax.errors import InputError
from rwp_jax.evaluation import columns, table2
from rwp_jax.evaluation.columns import heading, parse_attacks
from rwp_jax.evaluation.subject import Changes, load_subjects, path_name
from rwp_jax.runs.loaded import load_run
from tests.fresh_flags import forget_flags
from tests.small import lowerings, train_on_two_classes, write_two_classes

pytestmark = pytest.mark.usefixtures("one_device")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Trains on 48 training, 16 validation and 24 test images, at epsilon 0.2 and step size 0.05."""
    return train_on_two_classes(tmp_path_factory, 24, **{"data.validation_examples": 16})


@pytest.fixture(autouse=True)
def short_attacks(monkeypatch):
    short = (suite.ApgdCE(steps=5),)
    monkeypatch.setitem(suite.VERSIONS, "standard", short)
    monkeypatch.setattr(suite, "_STANDARD_L1", short)


def evaluate(run, attacks, **changes):
    return table2.evaluate(run, "last", attacks, 0, False, Changes(**changes))


def correct(run, folder, name):
    with np.load(run / "evaluation" / folder / "evaluation.npz") as arrays:
        return arrays[f"correct_{name}"]


def test_a_radius_given_is_attacked(run):
    """The run's own epsilon gives the run's own evaluation, another one attacks at that radius."""
    (own,) = evaluate(run, "pgd20")
    (same,) = evaluate(run, "pgd20", norm="l_inf", epsilons=(0.2,), step_size=0.05)
    assert same == own and own["epsilon"] == 0.2 and own["step_size"] == 0.05
    (small,) = table2.evaluate(run, "last", "pgd20", 0, True, Changes(epsilons=(0.02,)))
    assert small["step_size"] == pytest.approx(0.005), "in proportion"
    (evaluated,) = load_subjects(run, "last", 0)
    with np.load(run / "evaluation" / "last_epsilon_0.02" / "evaluation.npz") as arrays:
        moved = np.abs(arrays["x_adv_pgd20"] - evaluated.images / 255).max((1, 2, 3))
    assert moved.max() <= 0.02 + 1e-6 and moved.max() > 0.0199


def test_another_norm_keeps_inside_its_ball(run):
    changes = Changes(norm="l_2", epsilons=(0.5,))
    (summary,) = table2.evaluate(run, "last", "pgd20,autoattack", 0, True, changes)
    assert summary["norm"] == "l_2" and summary["step_size"] == pytest.approx(0.5 * 15 / 128)
    with np.load(run / "evaluation" / "last_l_2_epsilon_0.5" / "evaluation.npz") as arrays:
        (evaluated,) = load_subjects(run, "last", 0, changes)
        for name in ("pgd20", "autoattack"):
            moved = (arrays[f"x_adv_{name}"] - evaluated.images / 255).reshape(24, -1)
            lengths = np.linalg.norm(moved, axis=1)
            assert lengths.max() <= 0.5 + 1e-6
            assert name == "autoattack" or lengths.max() > 0.4, "the attack goes to the edge"


def test_l_1_is_autoattacks_alone(run):
    (summary,) = evaluate(run, "natural,autoattack", norm="l1", epsilons=(2.0,))
    assert summary["norm"] == "l_1" and set(summary["columns"]) >= {"natural", "autoattack"}
    with pytest.raises(
        InputError, match="norm=l_1 is only for attacks=natural,autoattack; must be .* for pgd20"
    ):
        evaluate(run, "natural,pgd20", norm="l_1", epsilons=(2.0,))


def test_steps_are_those_of_the_name():
    assert parse_attacks("autoattack,cw20,pgd100,cw100,pgd7,natural,pgd20") == [
        "natural",
        "pgd7",
        "pgd20",
        "pgd100",
        "cw20",
        "cw",
        "autoattack",
    ]
    assert [heading(name) for name in ("pgd7", "pgd20", "cw20", "cw")] == [
        "PGD-7",
        "PGD-20",
        "C&W-20",
        "C&W",
    ]
    sizes = columns.Sizes(0.1, 0.02)
    assert columns.fixed_attack("pgd7", sizes)[:2] == (7, 0.02)
    assert columns.fixed_attack("fgsm", sizes)[:2] == (1, 0.2)
    twenty, hundred = (columns.fixed_attack(name, sizes) for name in ("cw20", "cw"))
    assert twenty[:2] == (20, 0.02) and hundred == twenty._replace(steps=100)


def test_a_sweep_compiles_each_column_once(run, capsys):
    columns._program.cache_clear()
    with lowerings() as lowered:
        summaries = evaluate(run, "pgd7", epsilons=(0.3, 0.0, 0.1, 0.1))
    assert [summary["epsilon"] for summary in summaries] == [0.1, 0.3]
    assert all({"natural", "pgd7"} <= set(summary["columns"]) for summary in summaries)
    assert lowered.count("jit(judge)") == 2, "natural and pgd7"
    assert "epsilon 0.1\n" in capsys.readouterr().out


@pytest.fixture
def command_line(monkeypatch):
    """Runs `--mode evaluate` with the given flags."""
    monkeypatch.setattr(modes.devices, "split_cpu", lambda: None)
    monkeypatch.setattr(sys, "argv", ["main.py"])

    def call(*argv):
        forget_flags()
        monkeypatch.setattr(sys, "argv", ["main.py", "--mode=evaluate", *argv])
        parsing.parse_flags(sys.argv, modes.MODES)
        modes.evaluate()

    yield call
    forget_flags()


def test_the_picture_of_a_sweep_has_its_values(run, command_line, capsys):
    sweep = [f"--workdir={run}", "--checkpoint=last", "--attacks=pgd7", "--norm=linf"]
    command_line(*sweep, "--epsilon=1/10,0.3")
    (path,) = (run / "evaluation").glob("last_radii_*.json")
    held = json.loads(path.read_text())
    assert held["radii"] == json.loads(
        json.dumps(evaluate(run, "natural,pgd7", epsilons=(0.1, 0.3)))
    )
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert "on 24 test images of" in held["caption"] and held["caption"] in capsys.readouterr().out
    command_line(*sweep, "--epsilon=0,0.1")
    assert len(list((run / "evaluation").glob("last_radii_*.png"))) == 2, "of other radii"


@pytest.mark.parametrize(
    ("argv", "about"),
    [
        (["--epsilon=,"], "epsilon=,: '' must be a number such as 0.1 or 8/255"),
        (["--epsilon=0.1,x"], "epsilon=0.1,x: 'x' must be a number"),
        (["--epsilon=8/0"], "epsilon=8/0: '8/0' must be a number"),
        (["--epsilon=nan"], "epsilon=nan must be in"),
        (["--step_size=0.1,0.2"], "step_size=0.1,0.2 must be one number"),
        (["--corruptions=c", "--norm=l_2"], "--norm is not for --corruptions"),
        (["--corruptions=nowhere"], "corruptions=nowhere is not a directory"),
    ],
)
def test_refusals_of_the_command_line(run, command_line, argv, about):
    with pytest.raises(InputError, match=about):
        command_line(f"--workdir={run}", "--checkpoint=last", *argv)


def test_files_of_one_name_have_directories_of_their_own(run, tmp_path):
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        write_two_classes(tmp_path / place / "ema.npz", 20, 30)
        evaluate(run, "natural", data=str(tmp_path / place / "ema.npz"))
    found = [path.name for path in (run / "evaluation").glob("last_data_ema_*")]
    assert len(found) == 2 and not (run / "evaluation" / "last_ema").exists()


def test_the_runs_own_file_is_the_runs_own_data(run):
    path = load_run(run, "last").config.data.path
    (summary,) = evaluate(run, "natural", data=path, split="train")
    assert summary["examples"] == 48, "without those that are held out"


def test_a_foreign_evaluation_at_a_later_radius_is_found_first(run):
    evaluate(run, "natural", epsilons=(0.15,))
    path = run / "evaluation" / "last_epsilon_0.15" / "evaluation.npz"
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="is not an evaluation"):
        evaluate(run, "pgd7", epsilons=(0.05, 0.15))
    assert not (run / "evaluation" / "last_epsilon_0.05").exists()


@pytest.mark.parametrize(("split", "count"), [("train", 48), ("validation", 16), ("test", 24)])
def test_splits(run, split, count):
    (summary,) = evaluate(run, "natural", split=split)
    assert summary["examples"] == count and summary["split"] == split
    folder = "last" if split == "test" else f"last_{split}"
    assert len(correct(run, folder, "natural")) == count


def test_another_data_set(run, tmp_path):
    """The other data set's test images are classified and compared with its labels."""
    path = write_two_classes(tmp_path / "other.npz", 20, 30)
    (summary,) = evaluate(run, "natural", data=path)
    with np.load(path) as data:
        right = load_run(run, "last").predict(data["x_test"]).argmax(-1) == data["y_test"]
    np.testing.assert_array_equal(correct(run, f"last_data_{path_name(path)}", "natural"), right)
    assert summary["data"] == path and summary["examples"] == 30


def test_autoattack_leaves_its_record(run):
    (summary,) = evaluate(run, "autoattack")
    record = json.loads((run / "evaluation" / "last" / "benchmark.json").read_text())
    column = summary["columns"]["autoattack"]
    assert record["accuracy"]["robust"] == column | {"images": 24}
    assert record["split"] == "test" and record["seconds"]["all"] > 0
    assert record["norm"] == "l_inf" and record["eps"] == "0.2"
    assert record["architecture"] == "wrn-10-1" and record["name"].endswith("last")


@pytest.mark.parametrize(
    ("attacks", "setting", "about"),
    [
        ("natural", {"norm": "l3"}, "norm='l3' must be l_inf, l_2 or l_1"),
        (
            "pgd20",
            {"norm": "l_2"},
            "norm=l_2: epsilon= is missing; the run's is a radius in l_inf",
        ),
        ("pgd20", {"epsilons": (1.0,)}, r"epsilon=1.0 must be in \[0, 1\)"),
        ("pgd20", {"epsilons": (0.1, -0.1)}, r"epsilon=-0.1 must be in \[0, 1\)"),
        ("pgd20", {"epsilons": (0.0,)}, "a radius of 0 leaves nothing to attack"),
        ("natural", {"epsilons": (0.1, 0.2)}, "attacks=natural has no radius"),
        ("pgd20", {"epsilons": (0.1, 0.1000000001)}, "two radii that are equal to six digits"),
        ("pgd20", {"norm": "l_2", "epsilons": (9.0,)}, r"epsilon=9.0 must be in \[0, 8\)"),
        ("pgd20", {"step_size": 1.5}, r"step_size=1.5 must be in \[0, 1\)"),
        (
            "natural,autoattack",
            {"step_size": 0.1},
            "step_size=0.1 is for PGD and C&W, none of them",
        ),
        ("natural", {"split": "valid"}, "split='valid' must be one of test, train, validation"),
        ("natural", {"data": "mnist"}, "data='mnist' must be one of digits, cifar10"),
        ("natural", {"data": "no.npz"}, "data=no.npz is not a file"),
        ("natural", {"data": "digits"}, "data=digits: the network takes images 8x8x1 of 2 classes"),
        (
            "natural",
            {"data": "digits", "split": "validation"},
            "split=validation: data=digits has only test and train",
        ),
    ],
)
def test_refusals(run, attacks, setting, about):
    with pytest.raises(InputError, match=about):
        evaluate(run, attacks, **setting)
