"""Layouts, targets, individual attacks, logs and the official class of AutoAttack."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rwp_jax.attacks.autoattack import ApgdCE, ApgdT, AutoAttack, FabT, autoattack
from rwp_jax.attacks.autoattack.log import Log
from rwp_jax.errors import InputError
from tests.attacks.small_networks import QUICK, images, labels, network, quick

F, X = network(), images(12)
Y = labels(F, X, wrong=2)


def in_nchw(logits_fn):
    return lambda x: logits_fn(jnp.transpose(x, (0, 2, 3, 1)))


def test_nchw_gives_the_same():
    shape = (6, 4, 2, 3)
    weights = np.random.default_rng(0).standard_normal((24, 5)).astype(np.float32)
    logits_fn = lambda x: (x.reshape(len(x), -1) - 0.5) @ weights
    x = np.random.default_rng(1).uniform(0, 1, shape).astype(np.float32)
    y = labels(logits_fn, x)
    here = quick(logits_fn, x, y, "l_inf", 0.05)
    there = quick(
        in_nchw(logits_fn),
        x.transpose(0, 3, 1, 2),
        y,
        "l_inf",
        0.05,
        layout="NCHW",
        individual=True,
    )
    np.testing.assert_array_equal(there.robust, here.robust)
    assert there.x_adv.shape == (6, 3, 4, 2) == there.x_adv_alone["square"].shape
    np.testing.assert_array_equal(there.y_adv == y, there.robust)


def test_nchw_errors_show_the_callers_shapes():
    x, y = np.zeros((2, 3, 4, 6), np.float32), np.zeros(2, int)
    run = lambda logits_fn: autoattack(logits_fn, x, y, layout="NCHW")
    with pytest.raises(InputError, match=r"fails on images \[2, 3, 4, 6\]: TypeError"):
        run(lambda x: x.reshape(2, 72) @ np.zeros((7, 2)))
    with pytest.raises(InputError, match=r"returns float32\[2, 3\] for images \[3, 3, 4, 6\]"):
        run(lambda x: x[:2, :, 0, 0])


def test_classes_of_what_was_found():
    result = quick(F, X, Y, "l_inf", 0.05)
    np.testing.assert_array_equal(result.y_adv, np.asarray(F(result.x_adv)).argmax(-1))
    np.testing.assert_array_equal(result.y_adv == Y, result.robust)
    assert result.y_adv.dtype == np.int32 and result.x_adv_alone == {}


def test_each_attack_alone(tmp_path):
    state = tmp_path / "state.npz"
    run = lambda: quick(F, X, Y, "l_inf", 0.03, individual=True, state_path=state)
    result = run()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"state.npz.{name}" for name in ("apgd-ce", "apgd-t", "fab-t", "square")
    ]
    for attack in QUICK:
        alone = autoattack(F, X, Y, "l_inf", 0.03, "custom", attacks=attack)
        np.testing.assert_array_equal(result.robust_after[attack.name], alone.robust)
        np.testing.assert_array_equal(result.x_adv_alone[attack.name], alone.x_adv)
    every = np.logical_and.reduce(list(result.robust_after.values()))
    np.testing.assert_array_equal(result.robust, every)
    np.testing.assert_array_equal(np.asarray(F(result.x_adv)).argmax(-1) == Y, every)
    np.testing.assert_array_equal(run().x_adv, result.x_adv)


def test_targets_of_the_callers():
    """Targets ranked by clean logits give the same result as the default."""
    ranked = np.argsort(-np.asarray(F(X)), -1)
    attacks = (ApgdT(targets=2, steps=5), FabT(targets=2, steps=3))
    run = lambda **given: autoattack(F, X, Y, "l_inf", 0.03, "custom", attacks=attacks, **given)
    y_ranked = np.where(ranked[:, :1] == Y[:, None], ranked[:, 1:3], -1)
    wrong = y_ranked[:, 0] < 0  # already misclassified: any target is valid
    y_ranked[wrong] = ((Y + 1) % 5)[wrong, None]
    np.testing.assert_array_equal(run(targets=y_ranked).x_adv, run().x_adv)
    furthest = np.where(ranked[:, -1] == Y, ranked[:, -2], ranked[:, -1])
    assert run(targets=furthest).robust.sum() > run().robust.sum()


def test_a_state_is_of_its_targets(tmp_path):
    targets, state = (np.asarray(F(X)).argmin(-1) + (Y == 9)) % 5, tmp_path / "state.npz"
    targets = np.where(targets == Y, (Y + 1) % 5, targets)
    attack = ApgdT(targets=2, steps=2)
    run = lambda **given: autoattack(
        F, X, Y, "l_inf", 0.03, "custom", attacks=attack, state_path=state, **given
    )
    run(targets=targets)
    with pytest.raises(InputError, match="belongs to another evaluation: different targets"):
        run()
    state.unlink()
    run()
    with pytest.raises(InputError, match="belongs to another evaluation: different targets"):
        run(targets=targets)


@pytest.mark.parametrize(
    ("arguments", "about"),
    [
        ({"targets": [[1], [2, 3]]}, "targets= must be an array"),
        ({"targets": Y}, r"targets= has the label itself for 12 images, the first is number 0"),
        ({"targets": Y + 9}, r"targets= has classes in \[.*\], must be in \[0, 5\)"),
        ({"targets": Y[:3]}, r"targets= is int64\[3\], must be integer classes \[12\] or"),
        ({"targets": np.zeros(12)}, "targets= is float64"),
        (
            {"targets": (Y + 1) % 5, "attacks": "square"},
            "targets= is for apgd-t and fab-t, .* square",
        ),
        ({"individual": 1}, "individual=1 must be True or False"),
        ({"reuse": None}, "reuse=None must be True or False"),
        ({"layout": "CHWN"}, "layout='CHWN' must be one of NHWC, NCHW"),
        ({"layout": "NCHW", "x": X[0]}, r"x= is \[4, 4, 1\], must be images"),
        ({"log_path": "nowhere/log.txt"}, "log_path=nowhere/log.txt: there is no such directory"),
        ({"log_path": "."}, "log_path=. is a directory, must be a file"),
        ({"state_path": "."}, "state_path=. is a directory, must be a file"),
    ],
)
def test_refusals(arguments, about):
    given = {"x": X, "attacks": QUICK} | arguments
    x = given.pop("x")
    with pytest.raises(InputError, match=about):
        autoattack(F, x, Y, "l_inf", 0.03, "custom", **given)


def test_a_log_grows(tmp_path):
    path = tmp_path / "log.txt"
    path.write_text("before\n")
    result = quick(F, X, Y, "l_inf", 0.03, log_path=path)
    lines = path.read_text().splitlines()
    assert lines[:2] == ["before", "AutoAttack custom, l_inf, epsilon 0.03, 12 images"]
    assert "clean accuracy: 83.33% (10 of 12 images)" in lines
    assert (
        lines[-1]
        == f"robust accuracy: {result.robust.mean():.2%} ({result.robust.sum()} of 12 images)"
    )
    assert [line for line in lines if line.startswith("robust accuracy after square: ")]


def official(**arguments):
    adversary = AutoAttack(F, eps=0.03, version="custom", attacks_to_run=["apgd-ce"], **arguments)
    adversary.apgd.n_restarts, adversary.apgd.n_iter = 1, 5
    return adversary


def test_the_official_class(tmp_path, capsys):
    adversary = official(log_path=tmp_path / "log.txt")
    x_adv = adversary.run_standard_evaluation(X, Y, bs=8)
    expected = autoattack(F, X, Y, "l_inf", 0.03, "custom", attacks=ApgdCE(steps=5), batch_size=8)
    np.testing.assert_array_equal(x_adv, expected.x_adv)
    said = capsys.readouterr().out
    assert said == (tmp_path / "log.txt").read_text() and "robust accuracy after apgd-ce: " in said
    assert adversary.clean_accuracy(X, Y, bs=5) == 10 / 12
    adversary.attacks_to_run = ["apgd-ce", "square"]
    adversary.square.n_queries = 20
    found = adversary.run_standard_evaluation_individual(X, Y, bs=8, return_labels=True)
    assert list(found) == ["apgd-ce", "square"]
    for x, y in found.values():
        np.testing.assert_array_equal(np.asarray(F(x)).argmax(-1), y)
    x, y = adversary.run_standard_evaluation(X, Y, return_labels=True)
    np.testing.assert_array_equal(np.asarray(F(x)).argmax(-1), y)
    with pytest.raises(AttributeError):
        adversary.square.queries = 3
    with pytest.raises(AttributeError):
        adversary.eps = 0.1


def test_the_official_class_takes_images_of_pytorch():
    weights = np.random.default_rng(0).standard_normal((48, 5)).astype(np.float32)
    model = lambda x: (x.reshape(len(x), -1) - 0.5) @ weights
    x = np.random.default_rng(1).uniform(0, 1, (4, 3, 4, 4)).astype(np.float32)
    adversary = AutoAttack(
        model, eps=0.03, version="custom", attacks_to_run=["apgd-ce"], verbose=False
    )
    adversary.apgd.n_iter = 3
    x_adv = adversary.run_standard_evaluation(x, labels(model, x))
    assert x_adv.shape == x.shape
    with pytest.raises(InputError, match="give layout='NCHW' or layout='NHWC'"):
        adversary.run_standard_evaluation(np.zeros((4, 3, 4, 3), np.float32), np.zeros(4, int))


@pytest.mark.parametrize(
    ("version", "norm", "settings"),
    [
        ("standard", "Linf", (1, 1, False, 1, 9)),
        ("standard", "L1", (5, 1, True, 1, 5)),
        ("plus", "L2", (5, 1, False, 5, 9)),
        ("rand", "linf", (1, 20, False, 5, 9)),
    ],
)
def test_versions_set_what_the_official_ones_do(version, norm, settings):
    adversary = AutoAttack(F, norm=norm, version=version)
    apgd, fab, targeted = adversary.apgd, adversary.fab, adversary.apgd_targeted
    assert settings == (
        apgd.n_restarts,
        apgd.eot_iter,
        apgd.use_largereps,
        fab.n_restarts,
        targeted.n_target_classes,
    )


def test_the_official_class_with_a_randomised_network():
    noisy = lambda x, key: F(x + 0.1 * jax.random.normal(key, x.shape))
    adversary = AutoAttack(noisy, eps=0.03, version="rand", randomized=True, verbose=False)
    adversary.apgd.n_iter, adversary.apgd.eot_iter = 2, 2
    assert adversary.run_standard_evaluation(X, Y).shape == X.shape
    assert 0 <= adversary.clean_accuracy(X, Y) <= 1


@pytest.mark.parametrize(
    ("arguments", "about"),
    [
        ({"is_tf_model": True}, "is_tf_model=True"),
        ({"version": "fast"}, "version='fast' must be one of"),
        ({"attacks_to_run": ["square"]}, "attacks_to_run= is for version='custom'"),
        ({"norm": "L0"}, "norm='L0' must be"),
        ({"layout": "HWC"}, "layout='HWC' must be one of"),
        ({"attacks_to_run": None}, "attacks_to_run=None must be a list of names"),
        ({"attacks_to_run": 5}, "attacks_to_run=5 must be a list of names"),
        ({"seed": [1, 2, 3]}, r"^seed= of shape \[3\] must be one seed or one random key"),
        ({"eps": 8}, r"^eps=8 must be in \[0, 1\) .* for l_inf"),
        ({"norm": "L2", "eps": -0.5}, r"^eps=-0.5 must be in \[0, inf\) .* for l_2"),
        ({"norm": "L1", "eps": float("nan")}, "^eps=nan must be in"),
        ({"eps": "8/255"}, "^eps='8/255' must be in"),
    ],
)
def test_refusals_of_the_official_class(arguments, about):
    with pytest.raises(InputError, match=about):
        AutoAttack(F, **arguments)
    adversary = AutoAttack(F, version="custom", attacks_to_run=["pgd"])
    with pytest.raises(InputError, match="attacks_to_run: 'pgd' must be one of apgd-ce"):
        adversary.run_standard_evaluation(X, Y)


@pytest.mark.parametrize(
    ("arguments", "about"),
    [
        ({"norm": "L2", "eps": 300}, r"^eps=300 must be in \[0, .*\) .* for l_2 and images"),
        ({"seed": "a"}, "^seed="),
        ({"bs": 0}, "^bs=0 must be"),
        ({"x": 255 * X}, "^x_orig= must have pixels in"),
        ({"y": Y[:3]}, "^y_orig= is int64"),
        ({"x": [[0.5], [0.5, 0.5]]}, "^x_orig= must be an array: "),
    ],
)
def test_the_official_class_names_its_own_arguments(arguments, about):
    given = {"x": X, "y": Y, "bs": 8} | arguments
    made = {name: given.pop(name) for name in ("norm", "eps", "seed") if name in given}
    with pytest.raises(InputError, match=about):
        adversary = AutoAttack(F, version="custom", attacks_to_run=["apgd-ce"], **made)
        adversary.run_standard_evaluation(given["x"], given["y"], bs=given["bs"])


def test_settings_are_named_as_in_the_official_package():
    adversary = official()
    adversary.apgd.n_iter = 0
    with pytest.raises(InputError, match="^n_iter=0 must be"):
        adversary.run_standard_evaluation(X, Y)


def test_clean_accuracy_of_the_official_class():
    """Logits of NaN are no prediction, and neither is a class that the network does not have."""
    dark = lambda x: x[:, 0, 0, 0] < 0.5
    broken = lambda x: jnp.where(dark(x)[:, None], jnp.nan, F(x))
    adversary = AutoAttack(broken, layout="NHWC", verbose=False, seed=jax.random.key(1))
    zeros = np.zeros(len(X), int)
    right = ((np.asarray(F(X)).argmax(-1) == 0) & ~dark(X)).sum()
    assert 0 < dark(X).sum() < len(X)
    assert adversary.clean_accuracy(X, zeros, bs=len(X)) == right / len(X)
    with pytest.raises(InputError, match="^y_orig= has"):
        adversary.clean_accuracy(X, Y + 99)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is full")
def test_a_full_disk_costs_lines_of_the_log_only(capsys):
    log = Log("/dev/full", print)
    with pytest.warns(RuntimeWarning, match="log_path=/dev/full cannot be written to: No space"):
        log("one")
    log("two")
    assert capsys.readouterr().out == "one\ntwo\n"
