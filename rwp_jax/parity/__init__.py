"""Numerical parity with the authors' PyTorch code: recorded, and live from a checkout."""
