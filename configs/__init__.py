"""One file for each experiment, all starting from default.py."""
