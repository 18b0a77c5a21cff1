"""Explains a run's result: losses below c_min, weight-ascent steps, and the loss around the weights."""
