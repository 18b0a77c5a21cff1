"""Imports PyTorch checkpoints as runs, exports runs as such, and converts weights of any network.

`convert` and `convert_back` work for user-defined networks, without a run.
"""

from rwp_jax.pytorch.conversion import convert, convert_back

__all__ = ["convert", "convert_back"]
