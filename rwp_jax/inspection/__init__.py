"""Says what a run, a checkpoint or a file of data is (`--mode inspect`)."""
