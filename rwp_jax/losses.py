"""Per-example losses. Logits are [B, classes], labels [B] integers, the result [B]."""

import optax


def cross_entropy(logits, labels):
    """Cross-entropy, never negative: the gate's lower end relies on it."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
