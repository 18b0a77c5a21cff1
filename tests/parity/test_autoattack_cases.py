"""The comparison with recorded AutoAttack runs, on a generated directory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rwp_jax.attacks.autoattack import ApgdCE, ApgdT, FabT, Square, autoattack, suite
from rwp_jax.attacks.autoattack.apgd import apgd
from rwp_jax.attacks.autoattack.fab import fab, targeted_boundary
from rwp_jax.losses import cross_entropy
from rwp_jax.models.classifier import make_classifier
from rwp_jax.parity import autoattack as parity
from rwp_jax.parity.run_cases import main
from rwp_jax.pytorch.state_dict import to_state_dict

COUNT = 6
SHORT = (ApgdCE(steps=2), ApgdT(steps=2, targets=1), FabT(steps=2, targets=1), Square(queries=10))


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """Writes a network with random weights, images, and our own attacks' results as the recordings."""
    path = tmp_path_factory.mktemp("cases")
    classifier = make_classifier("wrn-10-1", 10, parity.MEAN, parity.STD, dtype="float64")
    params, batch_stats = classifier.init(jax.random.key(0), (8, 8, 3))
    params["linear"]["kernel"] *= 100  # logits vary between images, as in a trained network
    entries = to_state_dict("wrn-10-1", params) | to_state_dict(
        "wrn-10-1", batch_stats, "batch_stats"
    )
    np.savez(path / "wrn-10-1.npz", **entries)
    x = np.random.default_rng(0).integers(0, 256, (COUNT, 8, 8, 3), np.uint8)
    logits_fn = functools.partial(classifier.eval, params, batch_stats)
    logits = np.asarray(logits_fn(x / 255))
    y, index = logits.argmax(-1), np.arange(COUNT)
    np.savez(path / "clean.npz", x=x, y=y, logits=logits, correct=np.ones(COUNT, bool))
    start = np.clip(x / 255 + 0.01, 0, 1)
    np.savez(path / "start_Linf.npz", index=index, x_init=start)

    loss = lambda logits: cross_entropy(logits, y)
    epsilon = parity.EPSILON["l_inf"]
    attack = functools.partial(apgd, logits_fn, loss, norm="l_inf", epsilon=epsilon)
    found = jax.jit(attack)(jnp.asarray(x / 255), jnp.asarray(y), start)
    recorded = {"robust": found.robust, "loss_best": found.loss_best}
    np.savez(path / "apgd_ce_Linf.npz", index=index, **recorded)
    return path


@pytest.fixture
def change(directory):
    """Changes arrays of a recorded file for the duration of a test."""
    before = {path: path.read_bytes() for path in directory.iterdir()}

    def change(name, **arrays):
        path = directory / f"{name}.npz"
        np.savez(path, **(dict(np.load(path)) if path.exists() else {}) | arrays)

    yield change
    for path in directory.iterdir():
        if path in before:
            path.write_bytes(before[path])
        else:
            path.unlink()


def run(directory, only="*"):
    return main(["--cases", str(directory), "--only", only])


def test_apgd(directory, change, capsys):
    assert run(directory, "apgd*") == 0
    assert "best loss within tolerance on 6 of 6" in capsys.readouterr().out
    recorded = dict(np.load(directory / "apgd_ce_Linf.npz"))
    off = recorded["loss_best"] * (1 + 1e-7 * (np.arange(COUNT) < 2))
    change("apgd_ce_Linf", loss_best=np.where(np.arange(COUNT) < 1, off, recorded["loss_best"]))
    assert run(directory, "apgd*") == 0, "one image may be off"
    change("apgd_ce_Linf", loss_best=off)
    assert run(directory, "apgd*") == 1
    assert "FAIL: best loss outside on 2 of 6 images" in capsys.readouterr().out
    change("apgd_ce_Linf", **recorded | {"robust": ~recorded["robust"]})
    assert run(directory, "apgd*") == 1
    assert "FAIL: 6 of 6 verdicts differ" in capsys.readouterr().out


@pytest.mark.slow
def test_the_ensemble_and_attacks_alone(directory, change, capsys, monkeypatch):
    monkeypatch.setitem(suite.VERSIONS, "standard", SHORT)
    monkeypatch.setitem(suite.ATTACKS, "square", lambda: SHORT[3])
    recorded = parity.read(directory)
    result = autoattack(recorded.logits_fn_32, recorded.x, recorded.y)
    after = {name.replace("-", "_"): flags for name, flags in result.robust_after.items()}
    after.pop("clean")
    change("standard_Linf", eps=np.array(8 / 255), **after)
    alone = np.ones(COUNT, bool)
    change("alone_Linf_square", index=np.arange(COUNT), robust=alone, robust_counts=[9, 9])
    assert run(directory, "standard*") == 0
    counts = ", ".join(str(flags.sum()) for flags in after.values())
    assert f"robust {counts}; official {counts}" in capsys.readouterr().out
    assert run(directory, "alone*") == 1
    assert "official 9" in capsys.readouterr().out

    def off_by_two(flags):
        return np.arange(COUNT) < (flags.sum() + 2 if flags.sum() <= COUNT - 2 else flags.sum() - 2)

    change("standard_Linf", apgd_ce=off_by_two(after["apgd_ce"]))
    assert run(directory, "standard*") == 0, "two images may differ after an attack"
    change("standard_Linf", square=off_by_two(after["square"]))
    assert run(directory, "standard*") == 1, "and one after all"


def test_fab(directory, change, capsys):
    recorded = parity.read(directory)
    x, y = jnp.asarray(recorded.x), jnp.asarray(recorded.y)
    targets = jnp.argsort(recorded.logits_fn(x), -1)[:, -2]
    boundary = targeted_boundary(recorded.logits_fn, y, targets)
    attack = functools.partial(fab, recorded.logits_fn, boundary, norm="l_inf")
    distance = np.asarray(jax.jit(attack)(x, y).distance)
    fooled = np.isfinite(distance)
    assert fooled.any()
    theirs = {"distance": np.where(fooled, distance, 0), "fooled": fooled}
    change("fab_t2_Linf", index=np.arange(COUNT), **theirs)
    assert run(directory, "fab*") == 0
    assert "distance within tolerance on 6 of 6" in capsys.readouterr().out
    change("fab_t2_Linf", fooled=~fooled)
    assert run(directory, "fab*") == 1
    assert "FAIL: 6 of 6 verdicts differ" in capsys.readouterr().out


def test_what_cannot_run_is_a_row_of_its_own(directory, change, capsys):
    """Missing starting points, an unknown norm and missing arrays each give a row of their own."""
    change("apgd_ce_L2", robust=np.ones(COUNT, bool))
    change("apgd_ce_L0", robust=np.ones(COUNT, bool))
    change("fab_t2_Linf", fooled=np.ones(COUNT, bool))
    assert run(directory, "apgd*,fab*") == 1
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "start_L2.npz: cannot be read" in lines["apgd_ce_L2"]
    assert "no attack of this name is known" in lines["apgd_ce_L0"]
    assert "the case lacks 'index'" in lines["fab_t2_Linf"]
    assert "within tolerance on 6 of 6" in lines["apgd_ce_Linf"]
