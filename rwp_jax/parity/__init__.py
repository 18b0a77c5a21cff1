"""Numerical parity with the authors' PyTorch code: with recorded cases, and live with a checkout."""
