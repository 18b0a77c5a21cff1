import jax
import numpy as np
import pytest

from rwp_jax.attacks.threat_model import make_threat_model
from rwp_jax.errors import InputError

NORMS = {
    "l_inf": lambda delta: np.abs(delta).max((1, 2, 3)),
    "l_2": lambda delta: np.sqrt((delta**2).sum((1, 2, 3))),
}


@pytest.fixture
def x():
    """Images with pixels at both ends of the box."""
    return np.clip(np.random.default_rng(0).uniform(-0.2, 1.2, (64, 8, 8, 3)), 0, 1)


@pytest.mark.parametrize("norm", NORMS)
def test_samples_fill_the_ball_inside_the_box(norm, x, key):
    threat_model = make_threat_model(norm, 0.3)
    inner = np.full_like(x, 0.5)  # the box clips nothing here
    for images in (x, inner):
        delta = np.asarray(threat_model.sample(jax.random.split(key, 64), images))
        assert (NORMS[norm](delta) <= 0.3 * (1 + 1e-12)).all()
        assert (images + delta >= 0).all() and (images + delta <= 1).all()
    radii = NORMS[norm](delta)
    if norm == "l_2":  # uniform radius: the mean is epsilon / 2, with samples near both ends
        assert radii.min() < 0.03 and radii.max() > 0.27 and abs(radii.mean() - 0.15) < 0.03
    else:
        assert radii.min() > 0.28 and abs(delta.mean()) < 0.005


def test_a_sample_depends_on_its_key_alone(x, key):
    threat_model = make_threat_model("l_2", 0.5)
    keys = jax.random.split(key, 64)
    together = threat_model.sample(keys, x)
    apart = threat_model.sample(keys[10:20], x[10:20])
    np.testing.assert_allclose(together[10:20], apart, rtol=1e-13)


@pytest.mark.parametrize("norm", NORMS)
def test_projection(norm, x):
    threat_model = make_threat_model(norm, 0.3)
    delta = np.random.default_rng(1).standard_normal(x.shape)
    delta[:8] *= 1e-3
    projected = np.asarray(threat_model.project(delta, x))
    assert (NORMS[norm](projected) <= 0.3 + 1e-12).all()
    assert (x + projected >= -1e-15).all() and (x + projected <= 1 + 1e-15).all()
    np.testing.assert_array_equal(projected[:8], np.clip(delta[:8], 0 - x[:8], 1 - x[:8]))


def test_steps():
    gradient = np.array([3.0, -4.0, 0.0, 0.0]).reshape(1, 2, 2, 1)
    zero = np.zeros_like(gradient)
    step = lambda norm: np.asarray(make_threat_model(norm, 0.5).step(zero, gradient, 0.1)).ravel()
    np.testing.assert_allclose(step("l_inf"), [0.1, -0.1, 0, 0])
    np.testing.assert_allclose(step("l_2"), [0.06, -0.08, 0, 0])
    assert np.isfinite(make_threat_model("l_2", 1.0).step(zero, zero, 0.1)).all()


@pytest.mark.parametrize(
    ("norm", "epsilon", "message"),
    [
        ("l_1", 0.1, "norm='l_1' must be l_inf or l_2"),
        ("l_inf", 1, r"epsilon=1 must be in \[0, 1\)"),
        ("l_2", -0.1, r"epsilon=-0.1 must be in \[0, 1000\]"),
        ("l_2", float("nan"), "epsilon=nan"),
    ],
)
def test_refusals(norm, epsilon, message):
    with pytest.raises(InputError, match=message):
        make_threat_model(norm, epsilon)


@pytest.mark.parametrize("norm", NORMS)
def test_the_trades_variant_starts_near_x(norm, x, key):
    delta = make_threat_model(norm, 0.3, "trades").sample(jax.random.split(key, 64), x)
    assert 0.0009 < np.std(delta) < 0.0011 and abs(np.mean(delta)) < 1e-4


def test_the_trades_variant_of_l_2_projects_onto_the_ball_last(x):
    """Projecting onto the ball last keeps the norm at epsilon; projecting onto the box last does not."""
    threat_model, madry = make_threat_model("l_2", 0.3, "trades"), make_threat_model("l_2", 0.3)
    far = np.random.default_rng(1).standard_normal(x.shape)
    delta = np.asarray(threat_model.project(far, x))
    np.testing.assert_allclose(NORMS["l_2"](delta), 0.3, rtol=1e-6)
    assert (x + delta >= 0).all() and (x + delta <= 1).all()
    assert NORMS["l_2"](np.asarray(madry.project(far, x))).max() < 0.3 * 0.99


def test_the_trades_variant_of_l_2_takes_steps_of_exact_length(x):
    threat_model = make_threat_model("l_2", 0.3, "trades")
    gradient = np.random.default_rng(1).standard_normal(x.shape) * 1e-12
    gradient[0] = 0  # the authors' script would divide by zero here
    delta = np.asarray(threat_model.step(np.zeros_like(x), gradient, 0.06))
    np.testing.assert_allclose(NORMS["l_2"](delta), [0] + [0.06] * 63, rtol=1e-12)


def test_unknown_variant():
    with pytest.raises(InputError, match="variant='cw' must be one of madry, trades"):
        make_threat_model("l_2", 0.3, "cw")
