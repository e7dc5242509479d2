"""The errors and passes of learning rules, side by side."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from ._check import check_axes, rows_of
from ._style import set_labels

_FLOOR = 1e-17


def audit(axes: Axes, report: Any) -> Axes:
    """Draw the error of every learning rule on a logarithmic scale, with its passes beside it.

    Filled marks are rules that run forward only on the same machine. Open marks are rules that need more. A rule whose
    error is NaN has a name but no mark.

    Args:
        axes: where to draw.
        report: the result of `eg.audit`, or its rows.

    Returns:
        The axes.

    Raises:
        ArgumentTypeError: if `axes` is not `Axes`, or `report` is not such a report.
        ArgumentError: if there are no rows.

    Example:
        ```python
        figure, axes = plot.figure(7, 4)
        plot.audit(axes, eg.audit(system, {"echo": (start, eg.Echo())}, dt=0.1, steps=20, growth=False))
        ```
    """
    check_axes("plot.audit", axes)
    rows = rows_of("plot.audit", report, ("rule", "error", "passes", "forward_only"), "the result of echograd.audit")
    height = np.arange(len(rows))[::-1]
    errors = np.maximum([row.error for row in rows], _FLOOR)
    forward = np.array([row.forward_only for row in rows])
    for mask, fill, label in ((forward, "full", "forward-only"), (~forward, "none", "needs more")):
        if mask.any():
            axes.plot(errors[mask], height[mask], "o", fillstyle=fill, label=label)
    for y, row in zip(height, rows, strict=True):
        passes = f"{row.passes:.0f} passes" if row.passes >= 2 else "1 pass and a reverse sweep"
        text = "refused" if np.isnan(row.passes) else passes
        axes.annotate(text, (1.02, y), xycoords=("axes fraction", "data"), va="center")
    axes.set_xscale("log")
    axes.set_xlim(_FLOOR / 3, 30)
    axes.set_yticks(height, [row.rule for row in rows])
    set_labels(axes, "Learning rule", "relative error of the gradient")
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2)
    return axes
