"""Bias and variance of a gradient over the strength of its nudge."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from .._internal._errors import ArgumentError, ArgumentTypeError
from ._check import check_axes, rows_of
from ._style import DASHED, set_labels, theme


def nudge_sweep(axes: Axes, sweep: Any) -> Axes:
    """Draw error, bias, deviation and estimated error of a nudge over its strength, both axes logarithmic.

    The strength with the smallest error has a ring. The error of `"auto"`, which has no place on the axis, is a level
    line. A bias is drawn if it exceeds twice the standard error of the mean. Strengths that were refused are crosses at
    the bottom, if they are within two decades of the others.

    Args:
        axes: where to draw.
        sweep: the result of `eg.nudge_sweep`.

    Returns:
        The axes.

    Raises:
        ArgumentTypeError: if `axes` is not `Axes`, or `sweep` is not a sweep.
        ArgumentError: if no numeric strength gave a gradient with an error.

    Example:
        ```python
        figure, axes = plot.figure(4.5, 3)
        plot.nudge_sweep(axes, eg.nudge_sweep(loss, system, [1e-3, 1e-2, 0.1]))
        ```
    """
    check_axes("plot.nudge_sweep", axes)
    source = "the result of echograd.nudge_sweep"
    if not all(hasattr(sweep, name) for name in ("rows", "nudge", "noise", "repeats")):
        raise ArgumentTypeError(f"plot.nudge_sweep: got a {type(sweep).__name__}, but needs {source}.")
    rows_of("plot.nudge_sweep", sweep, ("beta", "error", "bias", "deviation", "estimate", "refused"), source)
    numeric = sorted((row for row in sweep.rows if not isinstance(row["beta"], str)), key=lambda row: abs(row["beta"]))
    drawn = [row for row in numeric if row["refused"] is None]
    if not drawn:
        raise ArgumentError("plot.nudge_sweep: no numeric strength gave a gradient, so there is nothing to draw.")
    if not any(row["error"] > 0 for row in drawn):
        raise ArgumentError("plot.nudge_sweep: every gradient is exact, so there is no error for a logarithmic axis.")
    colours = theme()
    looks: dict[str, dict[str, Any]] = {
        "error": {"color": colours.ink, "marker": "o"},
        "bias": {"color": colours.nudge, "marker": "s", "ls": DASHED},
        "deviation": {"color": colours.echo, "marker": "D", "ls": (0, (1, 1.2))},
        "estimate": {"color": colours.backprop, "marker": "_", "ls": (0, (4, 1.5, 1, 1.5))},
    }
    if not sweep.noise:
        del looks["deviation"], looks["bias"]  # the deviation is zero, and the bias is the error
    beta = np.asarray([abs(row["beta"]) for row in drawn])
    columns = {name: np.asarray([row[name] for row in drawn], float) for name in looks}
    if sweep.noise:
        columns["bias"][columns["bias"] < 2 * columns["deviation"] / sweep.repeats**0.5] = np.nan
    for name, look in looks.items():
        axes.plot(beta, columns[name], label="estimated bias" if name == "estimate" else name, **look)
    best = min(drawn, key=lambda row: row["error"])
    axes.plot(
        [abs(best["beta"])], [best["error"]], "o", ms=10, mfc="none", mec=colours.ink, mew=0.9, label="_best", zorder=3
    )
    for row in sweep.rows:
        if isinstance(row["beta"], str) and row["refused"] is None:
            axes.axhline(row["error"], color=colours.muted, lw=0.9, label=f"error, {row['beta']}")
    refused = [abs(row["beta"]) for row in numeric if row["refused"] is not None]
    near = [x for x in refused if 0.01 * beta[0] <= x <= 100 * beta[-1]]
    if near:
        bottom = axes.get_xaxis_transform()
        axes.plot(near, [0.03] * len(near), "x", color=colours.nudge, transform=bottom, label="refused")
        axes.set_xlim(min(beta[0], *near) / 1.5, max(beta[-1], *near) * 1.5)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.grid(axis="y")
    axes.legend()
    set_labels(axes, "Relative error of the gradient", f"strength of {sweep.nudge}")
    return axes
