"""Accuracy after each epoch, the columns of Table 2, and labels by a trained network."""
