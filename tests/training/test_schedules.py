import numpy as np
import pytest

from rwp_jax.errors import InputError
from rwp_jax.training.schedules import WARMING, check_schedule, make_schedule, momentum_schedule


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


@pytest.mark.parametrize("warmup", [0.025, 0.3, 0.5])
def test_cyclic_is_an_interpolation(warmup):
    cyclic = make_schedule("cyclic", 0.2, 10, 4, warmup=warmup)
    for step in range(40):
        expected = np.interp((step + 1) / 40, [0, warmup, 1], [0, 0.2, 0])
        np.testing.assert_allclose(cyclic(step), expected, rtol=1e-12, atol=1e-15)


def test_one_cycle_by_hand():
    """Ten steps, of which PyTorch's boundary puts the peak at step 2: pct_start * 10 - 1."""
    rate = make_schedule("one_cycle", 1.0, 5, 2, warmup=0.3)
    momentum = momentum_schedule("one_cycle", (0.85, 0.95), 5, 2, 0.3)
    np.testing.assert_allclose([rate(0), rate(1), rate(2)], [0.04, 0.52, 1.0], rtol=1e-12)
    np.testing.assert_allclose(rate(9), 0.04 / 10_000, rtol=1e-9)
    found = [momentum(step) for step in (0, 1, 2, 9)]
    np.testing.assert_allclose(found, [0.95, 0.9, 0.85, 0.95], rtol=1e-12)


def test_by_epoch_the_rate_of_an_epoch_is_one():
    by_step = make_schedule("one_cycle", 1.0, 6, 1, warmup=0.4)
    by_epoch = make_schedule("one_cycle_epoch", 1.0, 6, 3, warmup=0.4)
    for step in range(18):
        assert by_epoch(step) == by_step(step // 3)


@pytest.mark.parametrize("name", WARMING)
def test_warming_schedules_need_a_share(name):
    for warmup in (0.0, 1.0, -0.1):
        with pytest.raises(InputError, match=rf"warmup={warmup} must be in \(0, 1\), such as 0.3"):
            check_schedule(name, warmup)


def test_others_take_none():
    with pytest.raises(InputError, match="warmup=0.1 must be 0, for .*schedule='piecewise'"):
        check_schedule("piecewise", 0.1)
