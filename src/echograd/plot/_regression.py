"""Predicted and true numbers of a regression."""

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from .._internal._errors import ArgumentError
from ._check import check_axes, numbers
from ._style import set_labels, theme


def predicted_against_true(axes: Axes, truth: ArrayLike, prediction: ArrayLike, *, unit: str = "") -> Axes:
    """Draw predicted against true numbers, with the line on which they agree.

    Args:
        axes: where to draw.
        truth: true numbers, any shape. Pairs with a number that is not finite are left out.
        prediction: predicted numbers, of the same shape.
        unit: unit of both.

    Returns:
        The axes.

    Raises:
        ArgumentTypeError: if an argument is not real numbers.
        ArgumentError: if the shapes differ, or no pair is finite.

    Example:
        ```python
        figure, axes = plot.figure(4, 3)
        plot.predicted_against_true(axes, [1.0, 2.0, 3.0], [1.1, 1.9, 3.2], unit="beats per minute")
        ```
    """
    owner = "plot.predicted_against_true"
    check_axes(owner, axes)
    x, y = numbers(owner, "truth", truth), numbers(owner, "prediction", prediction)
    if x.shape != y.shape:
        raise ArgumentError(f"{owner}: the shapes of truth {x.shape} and prediction {y.shape} differ.")
    colours = theme()
    x, y = (values[np.isfinite(x) & np.isfinite(y)] for values in (x, y))
    if not x.size:
        raise ArgumentError(f"{owner}: there is no case whose truth and prediction are both finite.")
    low, high = float(min(x.min(), y.min())), float(max(x.max(), y.max()))
    room = 0.05 * (high - low) or 1.0
    ends = (low - room, high + room)
    axes.plot(ends, ends, color=colours.muted, lw=0.9, ls=(0, (4, 2)), label="agreement")
    axes.plot(x, y, "o", color=colours.echo, ms=3, mew=0, alpha=max(0.15, min(0.8, 400 / x.size)), label="cases")
    axes.set_xlim(ends)
    axes.set_ylim(ends)
    axes.set_aspect("equal")
    axes.grid()
    set_labels(axes, f"Predicted {unit}".strip(), f"true {unit}".strip())
    return axes
