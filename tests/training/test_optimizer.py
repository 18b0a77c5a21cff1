import numpy as np
import optax
import pytest

from rwp_jax.errors import InputError
from rwp_jax.training.optimizer import make_schedule, make_sgd


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_is_pytorchs(nesterov):
    """The update equals torch.optim.SGD's documented one, written in NumPy."""
    rng = np.random.default_rng(0)
    w = ours = rng.standard_normal(5)
    buffer = np.zeros(5)
    optimizer = make_sgd(0.1, 0.9, 5e-4, nesterov)
    state = optimizer.init(ours)
    for _ in range(4):
        g = rng.standard_normal(5)
        updates, state = optimizer.update(g, state, ours)
        ours = optax.apply_updates(ours, updates)
        g = g + 5e-4 * w
        buffer = 0.9 * buffer + g
        w = w - 0.1 * (g + 0.9 * buffer if nesterov else buffer)
    np.testing.assert_allclose(ours, w, rtol=1e-12)


@pytest.mark.parametrize("steps_per_epoch", [1, 3, 7])
@pytest.mark.parametrize("epochs", [1, 5, 200])
def test_schedules_are_the_authors(epochs, steps_per_epoch):
    """The rate of step i is that at t = epoch + (i + 1) / n, as in the authors' scripts."""
    piecewise = make_schedule("piecewise", 0.1, epochs, steps_per_epoch)
    cosine = make_schedule("cosine", 0.1, epochs, steps_per_epoch)
    for step in range(epochs * steps_per_epoch):
        done = step + 1
        total = epochs * steps_per_epoch
        drop = 1 if 2 * done < total else 0.1 if 4 * done < 3 * total else 0.01
        np.testing.assert_allclose(piecewise(step), 0.1 * drop, rtol=1e-6)
        expected = 0.05 * (1 + np.cos(np.pi * done / total))
        np.testing.assert_allclose(cosine(step), expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("epochs", [1, 5, 30, 200])
def test_schedules_by_epoch_are_the_authors(epochs):
    """TRADES's and RST's scripts count epochs from 1; TRADES's rate drops at 100 and 150 of 200."""
    trades = make_schedule("piecewise_epoch", 0.1, epochs, 3)
    rst = make_schedule("cosine_epoch", 0.1, epochs, 3)
    for step in range(3 * epochs):
        epoch = step // 3 + 1
        drop = 1 if epoch < epochs / 2 else 0.1 if epoch < 3 * epochs / 4 else 0.01
        np.testing.assert_allclose(trades(step), 0.1 * drop, rtol=1e-6)
        expected = 0.05 * (1 + np.cos(np.pi * (epoch - 1) / epochs))
        np.testing.assert_allclose(rst(step), expected, rtol=1e-6)


def test_unknown_schedule():
    with pytest.raises(
        InputError, match="schedule='step' must be one of piecewise, piecewise_epoch"
    ):
        make_schedule("step", 0.1, 1, 1)
