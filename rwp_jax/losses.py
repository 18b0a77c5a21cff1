"""Per-example losses. Logits are [B, classes], labels [B] integers, the result [B]."""

import jax
import jax.numpy as jnp
import optax


def cross_entropy(logits, labels):
    """Cross-entropy, never negative: the gate's lower end relies on it. 0 for label -1, "no label"."""
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(labels, 0))
    return jnp.where(labels >= 0, losses, 0)


def kl_divergence(logits_p, logits_q):
    """KL(p || q) = sum_c p_c (log p_c - log q_c) of the softmax distributions."""
    log_p, log_q = jax.nn.log_softmax(logits_p), jax.nn.log_softmax(logits_q)
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q), -1)


def entropy(logits):
    """Entropy -sum_c p_c log p_c of the softmax distribution."""
    log_p = jax.nn.log_softmax(logits)
    return -jnp.sum(jnp.exp(log_p) * log_p, -1)
