"""Devices, processes, and how they find, tell and stop each other."""
