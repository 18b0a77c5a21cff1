"""Objectives of AutoAttack. Logits are [B, classes], labels are integers [B], and results are [B]."""

import jax
import jax.numpy as jnp
from jax import lax

_EPS = 1e-12  # as in the official code


def logits_of(logits, classes):
    """The logit [B] of one class per example; classes [B]."""
    return jnp.take_along_axis(logits, classes[:, None], -1)[:, 0]


def misclassified(logits, labels):
    """Bool [B]; non-finite logits count as misclassified, so that verdicts detect them."""
    return (jnp.argmax(logits, -1) != labels) | ~jnp.isfinite(logits).all(-1)


def below_largest(logits):
    """Logits minus the largest logit of each example, never above 0; their softmax is the same.

    A compiled program may compute the logits twice, once to find the largest, and round differently. For
    logits above about 1e9, whose rounding exceeds 88, the exponential of the difference would overflow.
    """
    below = logits - lax.stop_gradient(logits.max(-1, keepdims=True))
    return jnp.where(below > 0, 0, below)


def dlr(logits, labels):
    """Difference of logits ratio (Croce and Hein, 2020, Eq. 6), for at least 3 classes.

    -(z_y - max_{i != y} z_i) / (z_(1) - z_(3)), where z_(k) is the k-th largest logit.
    """
    ranked = jnp.sort(logits, -1)
    correct = jnp.argmax(logits, -1) == labels
    rival = jnp.where(correct, ranked[:, -2], ranked[:, -1])
    return -(logits_of(logits, labels) - rival) / (ranked[:, -1] - ranked[:, -3] + _EPS)


def targeted_dlr(logits, labels, targets):
    """Targeted DLR (Croce and Hein, 2020, Eq. 7), for at least 4 classes.

    -(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2).
    """
    ranked = jnp.sort(logits, -1)
    spread = ranked[:, -1] - (ranked[:, -3] + ranked[:, -4]) / 2
    return -(logits_of(logits, labels) - logits_of(logits, targets)) / (spread + _EPS)


def margin(logits, labels):
    """z_y - max_{i != y} z_i, negative where the example is misclassified."""
    true_class = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
    return logits_of(logits, labels) - jnp.max(jnp.where(true_class, -jnp.inf, logits), -1)
