"""Square against its definition, and where the strongest perturbation is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rwp_jax.attacks.autoattack import square as module
from rwp_jax.attacks.autoattack.square import make_square, square
from rwp_jax.attacks.autoattack.windows import HALVINGS, pyramids, window_sizes

RNG = np.random.default_rng(0)
EPSILON = {"l_inf": 0.05, "l_2": 0.5, "l_1": 1.0}
NORMS = {
    "l_inf": lambda delta: abs(delta).max((1, 2, 3)),
    "l_2": lambda delta: np.sqrt((delta**2).sum((1, 2, 3))),
    "l_1": lambda delta: abs(delta).sum((1, 2, 3)),
}


def test_the_windows_of_cifar():
    """Window sides are sqrt(0.8 / 2^k * 1024), rounded, as in the official code for 32x32 images."""
    assert window_sizes(32, 32, 0.8, "l_inf").tolist() == [29, 20, 14, 10, 7, 5, 4, 3, 2, 1]
    assert window_sizes(32, 32, 0.8, "l_2").tolist() == [29, 21, 15, 11, 7, 5, 5, 3, 3, 3]
    assert window_sizes(2, 4, 0.8, "l_2").max() == 2, "no window is larger than the image"


def test_pyramids():
    """Pyramids have layers of 1/k^2 around the middle of each half, as in the paper."""
    half = np.zeros((3, 7))
    for k in range(4):
        half[max(1 - k, 0) : 2 + k, max(3 - k, 0) : 4 + k] += 1 / (k + 1) ** 2
    values = pyramids(7)
    np.testing.assert_allclose((values**2).sum(), 1)
    np.testing.assert_allclose(values[:3] / np.linalg.norm(values[:3]), half / np.linalg.norm(half))
    assert (values[:3] > 0).all() and (values[3:] < 0).all()
    assert pyramids(1).tolist() == [[-1]]


def linear(shape):
    weights = RNG.standard_normal((int(np.prod(shape)), 3))
    return lambda images: (images.reshape(len(images), -1) - 0.5) @ weights


@pytest.fixture(scope="module", params=list(EPSILON))
def walked(request):
    """Returns (norm, x, states), with the state after each query of a search of 60 queries."""
    norm = request.param
    x = RNG.uniform(0, 1, (4, 10, 10, 3))
    logits_fn = linear(x.shape[1:])
    y = np.asarray(logits_fn(x)).argmax(-1)
    search = make_square(norm, EPSILON[norm], x.shape[1:], queries=60)
    job = module.Job(jnp.asarray(x), y, None, None, jax.random.split(jax.random.key(0), 4))
    never = lambda points, _: logits_fn(points) + 1e3 * jax.nn.one_hot(y, 3)
    step = jax.jit(lambda state: search.step(never, job, state, None))
    states = [jax.jit(search.init)(job)]
    for _ in range(60):
        states.append(step(states[-1]))
    return norm, x, states


def test_points_stay_on_the_ball_and_in_the_box(walked):
    norm, x, states = walked
    for state in states:
        delta = np.asarray(state.x) - x
        assert (NORMS[norm](delta) <= EPSILON[norm] * (1 + 1e-12)).all()
        assert (state.x >= 0).all() and (state.x <= 1).all()


def test_the_margin_only_falls_and_belongs_to_the_best_point(walked):
    _, _, states = walked
    margins = np.array([state.margin for state in states[1:]])
    assert (np.diff(margins, axis=0) <= 0).all() and (margins[-1] < margins[0]).all()
    moved = [
        np.any(a.x_best != b.x_best, (1, 2, 3))
        for a, b in zip(states[1:], states[2:], strict=False)
    ]
    np.testing.assert_array_equal(np.array(moved), np.diff(margins, axis=0) < 0)


def test_a_proposal_differs_in_a_window_of_its_own(walked):
    norm, x, states = walked
    if norm != "l_inf":
        pytest.skip("its windows move norm, and all the rest is scaled or shortened with them")
    sides = window_sizes(10, 10, 0.8, norm)
    changed = [np.asarray((state.x != state.x_best).any(-1)) for state in states[1:]]
    for state, images in zip(states[1:], changed, strict=True):
        stage = int((int(state.iteration[0]) - 1 > np.array(HALVINGS)).sum())
        for image in images:
            rows, columns = image.any(1).nonzero()[0], image.any(0).nonzero()[0]
            if len(rows):
                assert np.ptp(rows) < sides[stage] and np.ptp(columns) < sides[stage]
    assert len({image.tobytes() for image in changed[40]}) > 1


@pytest.mark.parametrize("norm", EPSILON)
def test_finds_what_a_linear_network_allows(norm):
    """Square finds a boundary that is well within reach, and none that is out of reach."""
    x = RNG.uniform(0.3, 0.7, (16, 6, 6, 1))
    weights = RNG.standard_normal((36, 2))
    logits_fn = lambda images: (images.reshape(len(images), -1) - 0.5) @ weights
    logits = np.asarray(logits_fn(x))
    y = logits.argmax(-1)
    normal = np.abs(weights[:, 0] - weights[:, 1])
    epsilon = EPSILON[norm] / 5
    dual = {"l_inf": normal.sum(), "l_2": np.linalg.norm(normal), "l_1": normal.max()}
    reach = epsilon * dual[norm]
    share = abs(logits[:, 0] - logits[:, 1]) / reach
    keys = jax.random.split(jax.random.key(0), 16)
    attack = lambda: square(logits_fn, jnp.asarray(x), y, keys, norm=norm, epsilon=epsilon)
    state = jax.jit(attack)()
    fooled = np.asarray(state.margin) <= 0
    assert not fooled[share > 1].any() and (share > 1).any()
    # Pyramids match the weights of a random network badly.
    easy = share < {"l_inf": 0.5, "l_2": 0.25, "l_1": 0.3}[norm]
    assert fooled[easy].all() and easy.any()
    np.testing.assert_array_equal(np.asarray(logits_fn(state.x_best)).argmax(-1) != y, fooled)


def test_unknown_norm():
    with pytest.raises(ValueError, match="norm='L0' must be l_inf, l_2 or l_1"):
        make_square("L0", 0.1, (4, 4, 1))


@pytest.mark.parametrize("norm", ["l_inf", "l_2", "l_1"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (30, 1, 1), (1, 30, 2), (30, 4, 1), (12, 40, 3)])
def test_images_of_any_shape(shape, norm):
    x = RNG.uniform(0, 1, (3, *shape))
    logits_fn = linear(shape)
    y = np.asarray(logits_fn(x)).argmax(-1)
    keys = jax.random.split(jax.random.key(0), 3)
    found = square(logits_fn, x, y, keys, norm=norm, epsilon=0.3, queries=40)
    delta = np.asarray(found.x_best) - x
    order = {"l_inf": np.inf, "l_2": 2, "l_1": 1}[norm]
    size = np.linalg.norm(delta.reshape(3, -1), order, axis=1)
    assert np.isfinite(delta).all() and (size <= 0.3 * (1 + 1e-12)).all() and (size > 0).all()
