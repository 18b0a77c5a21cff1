"""Lengths of perturbations."""

import jax.numpy as jnp


def l_2_norms(delta):
    """L_2 norm of each example of [B, H, W, C], as [B, 1, 1, 1]."""
    return jnp.sqrt(jnp.sum(jnp.square(delta), (1, 2, 3), keepdims=True))
