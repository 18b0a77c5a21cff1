"""AutoAttack resumes after a kill."""

import functools

import jax
import numpy as np
import pytest

from rwp_jax.attacks.autoattack import (
    ApgdCE,
    FabT,
    Square,
    autoattack,
)
from tests.attacks.small_networks import images, labels, network


class Killed(Exception):
    pass


def test_continues_after_a_kill(tmp_path, monkeypatch):
    """After repeated kills, the evaluation ends with the same images and repeats no attack."""
    monkeypatch.setattr("rwp_jax.attacks.autoattack.state.SAVE_SECONDS", 0)
    logits_fn, x = network(), images(30)
    y = labels(logits_fn, x, 2)
    attacks = (ApgdCE(steps=10), FabT(targets=2, steps=5), Square(queries=1500))
    run = functools.partial(
        autoattack, logits_fn, x, y, "l_inf", 0.05, "custom", attacks=attacks, batch_size=8
    )
    whole, path, kills = run(), tmp_path / "state.npz", 0

    def killer():
        seen = []

        def progress(moment):
            seen.append(moment)
            if len(seen) == 3:
                raise Killed

        return progress

    while True:
        try:
            parts = run(state_path=path, progress=killer())
            break
        except Killed:
            kills += 1
    assert kills > 3
    np.testing.assert_array_equal(whole.x_adv, parts.x_adv)
    for name in whole.robust_after:
        np.testing.assert_array_equal(whole.robust_after[name], parts.robust_after[name])
    again = run(state_path=path, progress=lambda moment: pytest.fail("was finished"))
    np.testing.assert_array_equal(whole.x_adv, again.x_adv)


def test_the_state_of_something_else_is_refused(tmp_path):
    logits_fn, x = network(), images(6)
    y = labels(logits_fn, x)
    path = tmp_path / "state.npz"
    attacks = (ApgdCE(steps=3),)
    run = functools.partial(autoattack, version="custom", attacks=attacks, state_path=path)
    run(logits_fn, x, y)
    for arguments, about in (
        ((network(1), x, labels(network(1), x)), "different labels"),
        ((network(1), x, y), "different network"),
        ((logits_fn, 1 - x, y), "different images"),
        ((logits_fn, x, y, "l_2"), "different norm"),
        ((logits_fn, x, y, "l_inf", 0.2), "different epsilon"),
    ):
        with pytest.raises(ValueError, match=about):
            run(*arguments)
    with pytest.raises(ValueError, match="different attacks"):
        autoattack(logits_fn, x, y, state_path=path)
    with pytest.raises(ValueError, match="different network"):  # the same logits, but no gradient
        run(lambda z: logits_fn(jax.lax.stop_gradient(z)), x, y)
    with pytest.raises(ValueError, match="different precision"):
        run(logits_fn, x, y, precision="highest")
    arrays = dict(np.load(path))
    for lost in ("figures", "x_adv", "robust_after", "broken", "identity"):
        np.savez(path, **{name: a for name, a in arrays.items() if name != lost})
        with pytest.raises(ValueError, match="is not a state of AutoAttack"):
            run(logits_fn, x, y)
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="is not a state of AutoAttack"):
        run(logits_fn, x, y)
    assert path.read_bytes() == b"nothing"


def test_a_state_of_another_evaluation_is_refused_before_the_network_runs(tmp_path, monkeypatch):
    logits_fn, x, path = network(), images(4), tmp_path / "state.npz"
    y = labels(logits_fn, x)
    run = functools.partial(
        autoattack, logits_fn, x, y, version="custom", attacks=ApgdCE(steps=2), state_path=path
    )
    run(epsilon=0.1)
    monkeypatch.setattr("rwp_jax.attacks.autoattack.ensemble.Forward", None)
    with pytest.raises(ValueError, match=r"different epsilon \(0.1 there, 0.2 here\)"):
        run(epsilon=0.2)
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="is not a state of AutoAttack"):
        run(epsilon=0.1)
