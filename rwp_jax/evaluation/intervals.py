"""How sure a share of test images is."""

import math

Z_95 = 1.959963984540054  # standard normal quantile of 97.5%


def wilson(successes: int, count: int) -> tuple[float, float]:
    """95% interval of a probability after `successes` of `count` > 0 trials (Wilson, 1927), in [0, 1]."""
    share, weight = successes / count, Z_95**2 / count
    middle = (share + weight / 2) / (1 + weight)
    half = Z_95 / (1 + weight) * math.sqrt(share * (1 - share) / count + weight / (4 * count))
    return max(0.0, middle - half), min(1.0, middle + half)
