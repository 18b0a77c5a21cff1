"""The directory of a run: its config, checkpoints and metrics, and the network in it."""
