"""Runs the authors' code, from the user's checkout, and ours side by side on the same numbers."""
