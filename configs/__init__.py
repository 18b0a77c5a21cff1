"""One config per experiment, each based on default.py."""
