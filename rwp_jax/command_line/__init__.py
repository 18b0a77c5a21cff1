"""Flags and modes of main.py."""
