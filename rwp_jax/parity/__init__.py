"""Numerical parity with the authors' PyTorch code: `python -m rwp_jax.parity --cases DIR`."""
