"""Predictions of numbers."""

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from .._internal._errors import ArgumentError
from ._check import check_axes, numbers
from ._style import headed, theme


def predicted_against_true(axes: Axes, truth: ArrayLike, prediction: ArrayLike, *, unit: str = "") -> Axes:
    """Draw predicted against true numbers, with the line on which they agree.

    Args:
        axes: where to draw.
        truth: true numbers, any shape; a pair of which one is not finite is left out.
        prediction: predicted ones, same shape.
        unit: unit of both.

    Returns:
        The axes.

    Raises:
        TypeError: what is given is not real numbers.
        ValueError: the shapes differ, or there is no finite pair.
    """
    who = "predicted_against_true"
    check_axes(who, axes)
    x, y = numbers(who, "truth", truth), numbers(who, "prediction", prediction)
    if x.shape != y.shape:
        raise ArgumentError(f"predicted_against_true: shapes {x.shape} and {y.shape} differ.")
    colours = theme()
    x, y = (values[np.isfinite(x) & np.isfinite(y)] for values in (x, y))
    if not x.size:
        raise ArgumentError("predicted_against_true: there is no case whose truth and prediction are both finite.")
    low, high = float(min(x.min(), y.min())), float(max(x.max(), y.max()))
    room = 0.05 * (high - low) or 1.0
    ends = (low - room, high + room)
    axes.plot(ends, ends, color=colours.muted, lw=0.9, ls=(0, (4, 2)), label="agreement")
    axes.plot(x, y, "o", color=colours.echo, ms=3, mew=0, alpha=max(0.15, min(0.8, 400 / x.size)), label="cases")
    axes.set_xlim(ends)
    axes.set_ylim(ends)
    axes.set_aspect("equal")
    axes.grid()
    headed(axes, f"Predicted {unit}".strip(), f"true {unit}".strip())
    return axes
