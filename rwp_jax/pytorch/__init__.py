"""Imports PyTorch checkpoints as runs, and exports runs as PyTorch checkpoints."""
