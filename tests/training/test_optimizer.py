import numpy as np
import optax
import pytest

from rwp_jax.configs import default
from rwp_jax.errors import InputError
from rwp_jax.training.optimizer import check_pattern, make_sgd
from rwp_jax.training.recipe import make_recipe, numbers_of


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


def test_gradients_are_clipped_before_decay():
    """As torch.nn.utils.clip_grad_norm_, whose norm is over all tensors and has 1e-6 beside it."""
    params = {"a": np.array([3.0, 0.0]), "b": np.array([4.0])}
    gradient = {"a": np.array([6.0, 0.0]), "b": np.array([8.0])}
    optimizer = make_sgd(1.0, 0.0, 0.1, clip_norm=5.0)
    updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    share = 5 / (10 + 1e-6)
    np.testing.assert_allclose(updates["a"], [-(6 * share + 0.3), 0.0], rtol=1e-12)
    np.testing.assert_allclose(updates["b"], [-(8 * share + 0.4)], rtol=1e-12)
    small = {name: g / 100 for name, g in gradient.items()}
    updates, _ = optimizer.update(small, optimizer.init(params), params)
    np.testing.assert_allclose(updates["b"], [-(0.08 + 0.4)], rtol=1e-12)


def test_some_parameters_do_not_decay():
    params = {"bn1": {"scale": np.ones(2)}, "conv1": {"kernel": np.ones(2)}}
    optimizer = make_sgd(1.0, 0.9, 0.1, no_decay="(^|/)bn")
    zero = {"bn1": {"scale": np.zeros(2)}, "conv1": {"kernel": np.zeros(2)}}
    updates, _ = optimizer.update(zero, optimizer.init(params), params)
    assert not updates["bn1"]["scale"].any()
    np.testing.assert_allclose(updates["conv1"]["kernel"], -0.1)


def test_patterns_are_checked():
    with pytest.raises(InputError, match="no_decay='\\(' must be a regular expression"):
        check_pattern("(")
    with pytest.raises(InputError, match="no_decay='bias' is found in no path .* such as scale"):
        make_sgd(1.0, no_decay="bias").init({"scale": np.ones(2)})


def test_a_shift_moves_the_schedule_and_the_first_perturbing_step():
    """As in a run whose first two epochs had four steps each, and whose others have six."""
    config = default.get_config()
    config.update_from_flattened_dict({"epochs": 4, "weight_perturbation.start_epoch": 3})
    numbers = numbers_of(config)
    whole, unshifted = make_recipe(config, None, 6, numbers)
    recipe, schedule = make_recipe(config, None, 6, numbers, shift=2 * 6 - 2 * 4)
    assert whole.perturb_from_step == 18 and recipe.perturb_from_step == 2 * 4 + 6
    assert [schedule(step) for step in range(8, 20)] == [unshifted(step) for step in range(12, 24)]
    assert schedule(8) < schedule(6) and schedule(13) < schedule(12)
