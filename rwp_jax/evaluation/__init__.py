"""Accuracy after each epoch, the columns of Table 2, and pseudo-labels from a trained network."""
