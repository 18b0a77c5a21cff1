"""Per-example losses. Logits are [B, classes], labels are integers [B], and losses are [B]."""

import jax
import jax.numpy as jnp
import optax


def cross_entropy(logits, labels, smoothing: float = 0.0):
    """Cross-entropy, 0 for label -1 ("no label"). Never negative, as the gate's lower end requires.

    With `smoothing` s in [0, 1), a target is 1 - s on its label plus s spread evenly over all classes, as
    in torch.nn.CrossEntropyLoss(label_smoothing=s).
    """
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(labels, 0))
    if smoothing:
        losses = (1 - smoothing) * losses - smoothing * jnp.mean(jax.nn.log_softmax(logits), -1)
    return jnp.where(labels >= 0, losses, 0)


def kl_divergence(logits_p, logits_q):
    """KL(p || q) = sum_c p_c (log p_c - log q_c) of the softmax distributions."""
    log_p, log_q = jax.nn.log_softmax(logits_p), jax.nn.log_softmax(logits_q)
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q), -1)


def entropy(logits):
    """Entropy -sum_c p_c log p_c of the softmax distribution."""
    log_p = jax.nn.log_softmax(logits)
    return -jnp.sum(jnp.exp(log_p) * log_p, -1)


def squared_error(logits_p, logits_q):
    """sum_c (p_c - q_c)^2 of the softmax distributions."""
    return jnp.sum(jnp.square(jax.nn.softmax(logits_q) - jax.nn.softmax(logits_p)), -1)


def squared_error_to(logits, is_true, smoothing: float = 0.0):
    """sum_c (p_c - t_c)^2 to targets [B, classes], 0 where those are all 0 ("no label").

    With `smoothing` s, a target y becomes y (1 - s) + (1 - y) s / (classes - 1).
    """
    off = smoothing / (logits.shape[-1] - 1)
    errors = jnp.square(jax.nn.softmax(logits) - (off + (1 - smoothing - off) * is_true))
    return jnp.where(jnp.any(is_true > 0, -1), jnp.sum(errors, -1), 0)


def carlini_wagner(logits, labels, confidence: float = 10.0):
    """-max(z_y - max_{i != y} z_i + confidence, 0), the margin loss of Carlini and Wagner (2017).

    As in the authors' evaluation, the maximum includes a logit of 0 in place of the true class's.
    """
    is_true = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    other = jnp.max((1 - is_true) * logits, -1)
    return -jax.nn.relu(jnp.sum(is_true * logits, -1) - other + confidence)
