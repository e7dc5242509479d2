"""The relative errors of gradients, parameter by parameter."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator

from ._check import check_axes, rows_of
from ._style import DOTTED, MARKERS, set_labels, theme


def gradient_agreement(
    axes: Axes, rows: Sequence[Mapping[str, Any]] | Any, *, tolerance: float | None = 1e-9, epsilon: float = 2.0**-52
) -> Axes:
    """Draw the relative error of gradients for every parameter, on a logarithmic axis.

    Args:
        axes: where to draw. A height of 0.15 inches for every parameter reads well.
        rows: the result of `eg.check_gradients`, or its rows.
        tolerance: largest error that counts as exact, drawn as a line; `None` for no line.
        epsilon: rounding unit of the dtype, drawn as a line. An error of zero is drawn at a tenth of it, hollow.

    Returns:
        The axes.

    Raises:
        ArgumentTypeError: if `axes` is not `Axes`, or `rows` is not such a report.
        ArgumentError: if there are no rows.

    Example:
        ```python
        figure, axes = plot.figure(4, 3)
        plot.gradient_agreement(axes, eg.check_gradients(loss, system, taylor=False))
        ```
    """
    check_axes("plot.gradient_agreement", axes)
    keys = ("parameter", "candidate", "relative_error")
    rows = rows_of("plot.gradient_agreement", rows, keys, "the result of echograd.check_gradients")
    colours = theme()
    parameters = list(dict.fromkeys(row["parameter"] for row in rows))
    candidates = list(dict.fromkeys(row["candidate"] for row in rows))
    palette = [colours.echo, colours.nudge, colours.backprop, colours.ink, colours.muted]
    floor = epsilon / 10
    for i, candidate in enumerate(candidates):
        errors = {row["parameter"]: row["relative_error"] for row in rows if row["candidate"] == candidate}
        y = np.asarray([parameters.index(name) for name in errors])
        x = np.asarray(list(errors.values()), float)
        small = x < floor
        x = np.maximum(x, floor)
        look = {"ls": "", "marker": MARKERS[i % 5], "color": palette[i % 5], "ms": 4.2}
        axes.plot(x[~small], y[~small], label=candidate, **look)
        axes.plot(x[small], y[small], **look, mfc="none", label="_zero")
    axes.set_xscale("log")
    largest = np.nanmax([row["relative_error"] for row in rows if np.isfinite(row["relative_error"])] or [epsilon])
    axes.set_xlim(floor / 2, 10 * max(largest, tolerance or 0, 10 * epsilon))
    axes.xaxis.set_major_locator(LogLocator(numticks=6))
    for x, text in ((epsilon, "rounding unit"), (tolerance, "tolerance")):
        if x is not None:
            axes.axvline(x, color=colours.muted, lw=0.9, ls=DOTTED)
            leftwards = x == tolerance
            axes.annotate(
                text,
                (x, 1),
                (-3 if leftwards else 3, -2),
                xycoords=axes.get_xaxis_transform(),
                textcoords="offset points",
                size=7,
                color=colours.muted,
                va="top",
                ha="right" if leftwards else "left",
            )
    axes.set_yticks(range(len(parameters)), parameters, parse_math=False)
    axes.set_ylim(len(parameters) - 0.4, -1.6)
    axes.tick_params(axis="y", length=0, labelsize=7)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="y")
    set_labels(axes, "Parameter", "relative error of the gradient")
    if len(candidates) > 1:
        axes.legend(loc="lower right")
    return axes
