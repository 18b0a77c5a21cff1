"""Reproduces the paper's tables and figures, each with one command: training runs and reports."""
