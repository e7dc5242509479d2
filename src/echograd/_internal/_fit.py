"""Exponents of power laws."""

import math
import statistics
from collections.abc import Sequence


def exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """Fit y = a xᵏ to positive numbers and return k, the slope of a straight line through the logarithms."""
    return statistics.linear_regression([math.log(v) for v in x], [math.log(v) for v in y]).slope
