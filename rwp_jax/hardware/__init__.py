"""Compiles programs for absent hardware, counts their cost and compares it with the data sheet."""
