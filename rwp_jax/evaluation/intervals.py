"""Confidence intervals of accuracies."""

import math

Z_95 = 1.959963984540054  # standard normal quantile of 97.5%


def wilson(successes: int, count: int) -> tuple[float, float]:
    """95% interval, in [0, 1], of a probability after `successes` in `count` > 0 trials (Wilson, 1927)."""
    share, weight = successes / count, Z_95**2 / count
    middle = (share + weight / 2) / (1 + weight)
    half = Z_95 / (1 + weight) * math.sqrt(share * (1 - share) / count + weight / (4 * count))
    return max(0.0, middle - half), min(1.0, middle + half)
