"""Objectives against their formulas in NumPy, on a linear network without BatchNorm."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax
from scipy.stats import entropy

from rwp_jax.errors import InputError
from rwp_jax.training.objective import Batch, Mixed
from rwp_jax.training.objectives import make_objective

RNG = np.random.default_rng(0)
PARAMS = RNG.standard_normal((6, 4))
X, X_ADV = RNG.standard_normal((2, 10, 6))
Y = np.arange(10) % 4
MISSING = np.where(np.arange(10) < 3, -1, Y)


def train(params, images):
    return images @ params, images.mean()  # as moments, to tell the passes apart


def probabilities(images):
    return np.exp(log_softmax(images @ PARAMS, -1))


def cross_entropies(images, labels):
    """Returns the cross-entropies [10], 0 for label -1."""
    losses = -np.log(probabilities(images)[np.arange(10), labels])
    return np.where(labels >= 0, losses, 0)


KL = np.array([entropy(p, q) for p, q in zip(probabilities(X), probabilities(X_ADV), strict=True)])


def compute(name, batch, **settings):
    return make_objective(name, **settings).per_example(train, jnp.asarray(PARAMS), batch)


@pytest.mark.parametrize(("name", "images"), [("natural", X), ("at", X_ADV)])
def test_classification(name, images):
    loss, aux = compute(name, Batch(X, X_ADV, Y))
    np.testing.assert_allclose(loss, cross_entropies(images, Y), rtol=1e-12)
    np.testing.assert_allclose(aux.gate_loss, loss, rtol=1e-12)
    assert aux.moments == (images.mean(),) and aux.terms == {}
    np.testing.assert_array_equal(aux.correct, (images @ PARAMS).argmax(-1) == Y)


@pytest.mark.parametrize(("name", "folds"), [("trades", 2), ("rst", 1)])
def test_trades(name, folds):
    loss, aux = compute(name, Batch(X, X_ADV, Y), beta=6.0)
    natural = cross_entropies(X, Y)
    np.testing.assert_allclose(loss, natural + 6 * KL, rtol=1e-12)
    np.testing.assert_allclose(aux.gate_loss, natural + 6 * KL, rtol=1e-12)
    np.testing.assert_allclose(aux.terms["natural_loss"], natural, rtol=1e-12)
    np.testing.assert_allclose(aux.terms["robust_loss"], KL, rtol=1e-12)
    assert aux.moments == (X_ADV.mean(), *[X.mean()] * folds)
    np.testing.assert_array_equal(aux.correct, (X_ADV @ PARAMS).argmax(-1) == Y)


def test_unlabelled_examples():
    """Cross-entropy is averaged over the 7 labelled examples, entropy over the 3 others, KL over all 10."""
    weight = np.linspace(0.5, 2, 10)
    batch = Batch(X, X_ADV, MISSING, weight, labelled_share=0.7)
    loss, aux = compute("rst", batch, beta=6.0, entropy_weight=0.5)
    natural = cross_entropies(X, MISSING)
    unlabelled = np.where(MISSING < 0, entropy(probabilities(X), axis=-1), 0)
    expected = weight * (natural / 0.7 + 6 * KL + 0.5 * unlabelled / 0.3)
    np.testing.assert_allclose(loss, expected, rtol=1e-12)
    plain = compute("rst", batch._replace(weight=1.0), beta=6.0, entropy_weight=0.5)[0]
    means = natural[3:].mean() + 6 * KL.mean() + 0.5 * unlabelled[:3].mean()
    np.testing.assert_allclose(plain.mean(), means, rtol=1e-12)
    # The gate sees each example's loss without weights.
    np.testing.assert_allclose(aux.gate_loss, natural + 6 * KL + 0.5 * unlabelled, rtol=1e-12)
    assert not aux.correct[:3].any()


def test_a_batch_without_labels_has_a_finite_loss():
    loss, _ = compute("rst", Batch(X, X_ADV, np.full(10, -1), 1.0, 0.0), beta=6.0)
    np.testing.assert_allclose(loss, 6 * KL, rtol=1e-12)


def test_gradients_flow_through_the_clean_logits_of_the_kl():
    batch = Batch(X, X_ADV, Y)
    per_example = make_objective("trades", beta=6.0).per_example
    total = lambda params: per_example(train, params, batch)[0].mean()
    gradient = jax.grad(total)(jnp.asarray(PARAMS))
    step = 1e-6 * RNG.standard_normal(PARAMS.shape)
    difference = (total(PARAMS + step) - total(PARAMS - step)) / 2
    np.testing.assert_allclose((gradient * step).sum(), difference, rtol=1e-6)


@pytest.mark.parametrize("name", ["trades", "rst"])
def test_the_attack_maximises_the_kl_from_fixed_clean_logits(name):
    calls = []

    def forward(images):
        calls.append(images)
        return images @ PARAMS

    loss = make_objective(name, beta=6.0).attack_loss(forward, X, Y)
    for _ in range(3):
        np.testing.assert_allclose(loss(X_ADV @ PARAMS), KL, rtol=1e-12)
    assert len(calls) == 1, "the clean forward is shared by all attack steps"


def test_the_attack_of_at_is_the_cross_entropy():
    assert make_objective("natural").attack_loss is None
    loss = make_objective("at").attack_loss(None, X, MISSING)
    np.testing.assert_allclose(loss(X_ADV @ PARAMS), cross_entropies(X_ADV, MISSING), rtol=1e-12)


def test_mart_is_its_formula():
    """The loss equals Wang et al. (2020), Eq. (8) to (10)."""
    loss, aux = compute("mart", Batch(X, X_ADV, Y), beta=5.0)
    p, q = probabilities(X), probabilities(X_ADV)
    others = np.where(np.eye(4)[Y] > 0, 0, q).max(1)
    boosted = -np.log(q[np.arange(10), Y]) - np.log(1.0001 - others)
    doubt = 1.0000001 - p[np.arange(10), Y]
    np.testing.assert_allclose(loss, boosted + 5 * KL * doubt, rtol=1e-9)
    np.testing.assert_allclose(aux.gate_loss, loss, rtol=1e-12)
    np.testing.assert_allclose(aux.terms["boosted_loss"], boosted, rtol=1e-9)
    np.testing.assert_allclose(aux.terms["robust_loss"], KL * doubt, rtol=1e-9)
    # The authors' code passes x first, and its accuracy is that on the attacked images.
    assert aux.moments == (X.mean(), X_ADV.mean())
    np.testing.assert_array_equal(aux.correct, q.argmax(1) == Y)


def test_mart_leaves_out_what_has_no_label():
    share = np.mean(MISSING >= 0)
    loss, _ = compute("mart", Batch(X, X_ADV, MISSING, labelled_share=share), beta=5.0)
    whole, _ = compute("mart", Batch(X, X_ADV, np.maximum(MISSING, 0)), beta=5.0)
    np.testing.assert_allclose(loss, np.where(MISSING >= 0, whole / share, 0), rtol=1e-12)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "tart"}, "name='tart' must be one of natural, at, trades, trades_lse, rst, mart"),
        ({"name": "trades", "beta": -0.1}, r"beta=-0.1 must be in \[0, inf\)"),
        (
            {"name": "trades", "gamma": 1},
            "name='trades' does not fit its settings: got an unexpected",
        ),
        ({"name": "trades", "clip": 0.1}, "name='trades' does not fit its settings: .*'clip'"),
        ({"name": "trades_lse", "clip": -0.1}, r"clip=-0.1 must be in \[0, inf\)"),
        ({"name": "rst", "entropy_weight": float("nan")}, "entropy_weight=nan must be in"),
        ({"name": "at", "label_smoothing": 1.0}, r"label_smoothing=1.0 must be in \[0, 1\)"),
        ({"name": "at", "label_smoothing": -0.1}, r"label_smoothing=-0.1 must be in \[0, 1\)"),
    ],
)
def test_refusals(settings, message):
    with pytest.raises(InputError, match=message):
        make_objective(**settings)


def smoothed(images, labels, share):
    """Returns the cross-entropies with targets of 1 - share on the label plus share / 4 on each class."""
    log_p = log_softmax(images @ PARAMS, -1)
    targets = (1 - share) * np.eye(4)[labels] + share / 4
    return np.where(labels >= 0, -(targets * log_p).sum(-1), 0)


@pytest.mark.parametrize(
    ("name", "images", "robust"),
    [("natural", X, 0), ("at", X_ADV, 0), ("trades", X, 6 * KL), ("rst", X, 6 * KL)],
)
def test_labels_are_smoothed(name, images, robust):
    settings = {} if name in ("natural", "at") else {"beta": 6.0}
    loss, aux = compute(name, Batch(X, X_ADV, Y), label_smoothing=0.1, **settings)
    np.testing.assert_allclose(loss, smoothed(images, Y, 0.1) + robust, rtol=1e-12)
    np.testing.assert_allclose(aux.gate_loss, loss, rtol=1e-12)


def test_labels_that_are_missing_are_not_smoothed():
    _, aux = compute("at", Batch(X, X_ADV, MISSING, 1.0, 0.7), label_smoothing=0.1)
    assert not aux.gate_loss[:3].any()
    np.testing.assert_allclose(aux.gate_loss[3:], smoothed(X_ADV, Y, 0.1)[3:], rtol=1e-12)


def test_mart_smooths_its_cross_entropy():
    batch = Batch(X, X_ADV, Y)
    plain, _ = compute("mart", batch, beta=6.0)
    loss, _ = compute("mart", batch, beta=6.0, label_smoothing=0.1)
    difference = smoothed(X_ADV, Y, 0.1) - cross_entropies(X_ADV, Y)
    np.testing.assert_allclose(loss - plain, difference, rtol=1e-9)


def errors_to(images, labels, smoothing):
    """Returns the squared errors to targets of 1 - smoothing on the label and smoothing / 3 elsewhere."""
    targets = np.full((10, 4), smoothing / 3)
    targets[np.arange(10), labels] = 1 - smoothing
    return np.where(labels >= 0, ((probabilities(images) - targets) ** 2).sum(-1), 0)


@pytest.mark.parametrize("clip", [0.0, 0.2])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_squared_errors(smoothing, clip):
    between = ((probabilities(X) - probabilities(X_ADV)) ** 2).sum(-1)
    assert (between < 0.2).any() and (between > 0.2).any()
    robust, natural = np.maximum(between - clip, 0), errors_to(X, Y, smoothing)
    settings = {"beta": 3.0, "label_smoothing": smoothing, "clip": clip}
    loss, aux = compute("trades_lse", Batch(X, X_ADV, Y, 0.5), **settings)
    np.testing.assert_allclose(aux.gate_loss, natural + 3 * robust, rtol=1e-12)
    np.testing.assert_allclose(loss, aux.gate_loss / 2, rtol=1e-12)
    np.testing.assert_allclose(aux.terms["robust_loss"], robust, rtol=1e-12)
    assert aux.moments == (X.mean(), X_ADV.mean())
    np.testing.assert_array_equal(aux.correct, (X_ADV @ PARAMS).argmax(-1) == Y)
    # Without a label, only the error between clean and attacked images is left.
    loss, aux = compute("trades_lse", Batch(X, X_ADV, MISSING, 1.0, 0.7), **settings)
    natural = errors_to(X, MISSING, smoothing)
    np.testing.assert_allclose(aux.gate_loss, natural + 3 * robust, rtol=1e-12)
    np.testing.assert_allclose(loss, natural / 0.7 + 3 * robust, rtol=1e-12)


def test_the_attack_on_squared_errors_holds_the_clean_prediction():
    attack = make_objective("trades_lse", beta=3.0, clip=0.2).attack_loss(
        lambda x: x @ PARAMS, X, Y
    )
    expected = ((probabilities(X) - probabilities(X_ADV)) ** 2).sum(-1)
    np.testing.assert_allclose(attack(X_ADV @ PARAMS), expected, rtol=1e-12)


def test_attacks_maximise_the_loss_without_smoothing():
    attack = make_objective("at", label_smoothing=0.1).attack_loss(None, X, Y)
    np.testing.assert_allclose(attack(X_ADV @ PARAMS), cross_entropies(X_ADV, Y), rtol=1e-12)


OTHER = (Y + 1 + np.arange(10) % 3) % 4
SHARE = np.linspace(0.5, 1, 10)
MIXED = Batch(X, X_ADV, Y, mixed=Mixed(OTHER, SHARE))


@pytest.mark.parametrize(
    ("name", "images", "robust"),
    [("natural", X, 0), ("at", X_ADV, 0), ("trades", X, 6 * KL), ("rst", X, 6 * KL)],
)
def test_mixed_targets(name, images, robust):
    """The cross-entropy to the mixed target, with label smoothing in both of its labels."""
    settings = {} if name in ("natural", "at") else {"beta": 6.0}
    loss, aux = compute(name, MIXED, label_smoothing=0.1, **settings)
    mixture = SHARE[:, None] * np.eye(4)[Y] + (1 - SHARE)[:, None] * np.eye(4)[OTHER]
    targets = 0.9 * mixture + 0.1 / 4
    expected = -(targets * log_softmax(images @ PARAMS, -1)).sum(-1)
    np.testing.assert_allclose(loss, expected + robust, rtol=1e-12)
    np.testing.assert_allclose(aux.gate_loss, loss, rtol=1e-12)


def test_squared_errors_to_mixed_targets():
    loss, aux = compute("trades_lse", MIXED, beta=3.0, label_smoothing=0.1)
    by_label = [np.full((10, 4), 0.1 / 3) for _ in range(2)]
    for targets, labels in zip(by_label, (Y, OTHER), strict=True):
        targets[np.arange(10), labels] = 0.9
    targets = SHARE[:, None] * by_label[0] + (1 - SHARE)[:, None] * by_label[1]
    natural = ((probabilities(X) - targets) ** 2).sum(-1)
    robust = ((probabilities(X) - probabilities(X_ADV)) ** 2).sum(-1)
    np.testing.assert_allclose(aux.terms["natural_loss"], natural, rtol=1e-12)
    np.testing.assert_allclose(loss, natural + 3 * robust, rtol=1e-12)


def test_the_attack_of_at_maximises_the_mixed_cross_entropy():
    attack = make_objective("at").attack_loss(None, X, Y, MIXED.mixed)
    expected = SHARE * cross_entropies(X_ADV, Y) + (1 - SHARE) * cross_entropies(X_ADV, OTHER)
    np.testing.assert_allclose(attack(X_ADV @ PARAMS), expected, rtol=1e-12)
    of_trades = make_objective("trades").attack_loss(lambda x: x @ PARAMS, X, Y, MIXED.mixed)
    np.testing.assert_allclose(of_trades(X_ADV @ PARAMS), KL, rtol=1e-12)
