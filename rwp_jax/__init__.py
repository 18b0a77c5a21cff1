"""Robust Weight Perturbation for Adversarial Training (Yu et al., IJCAI 2022) in JAX."""

__version__ = "0.1.0"
