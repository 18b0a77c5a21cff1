"""The directory of a run: its config, checkpoints, metrics and network."""
