"""PyTorch checkpoints become runs, and back."""
