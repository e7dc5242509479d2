"""The memory and time of gradients, over the number of steps."""

import math
from collections.abc import Sequence
from typing import Any, Literal, TypedDict

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from .._internal import _checks
from .._internal._errors import ArgumentError
from .._internal._format import memory, seconds
from ._check import check_axes, rows_of
from ._style import DASHED, name_ends, set_labels, theme


class CostRow(TypedDict):
    """The cost of one gradient at one number of steps.

    Keys: `gradient`, a name; `steps`; `bytes`, the working memory of the compiled program; `seconds`, the median of
    repeated calls.

    Example: see `plot.costs`.
    """

    gradient: str
    steps: int
    bytes: int
    seconds: float


_TITLES = {"bytes": "Working memory", "seconds": "Time of a gradient"}


def _positive(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and bool(0 < value < math.inf)


def costs(axes: Axes, rows: Sequence[CostRow], quantity: Literal["bytes", "seconds"]) -> Axes:
    """Draw memory or time of gradients over the number of steps, both axes logarithmic.

    Args:
        axes: where to draw.
        rows: measurements, as `echograd.workbench.report.measure` returns them.
        quantity: `"bytes"` or `"seconds"`.

    Returns:
        The axes.

    Raises:
        ArgumentTypeError: if `axes` is not `Axes`, or `rows` is not a sequence of rows.
        ArgumentError: if there are no rows, the quantity is unknown, or a number is not positive.

    Example:
        ```python
        figure, axes = plot.figure(4, 3)
        rows = [plot.CostRow(gradient="echo", steps=n, bytes=900, seconds=1e-3 * n) for n in (10, 100)]
        plot.costs(axes, rows, "seconds")
        ```
    """
    check_axes("plot.costs", axes)
    _checks.choice("plot.costs", "quantity", quantity, _TITLES)
    source = "the result of echograd.workbench.report.measure"
    rows = rows_of("plot.costs", rows, ("gradient", "steps", quantity), source)
    if not all(_positive(row[quantity]) and _positive(row["steps"]) for row in rows):
        raise ArgumentError(f"plot.costs: steps and {quantity} must be positive for the logarithmic axes.")
    colours = theme()
    looks: dict[str, dict[str, Any]] = {
        "echo": {"color": colours.echo, "marker": "o"},
        "backprop": {"color": colours.backprop, "marker": "s", "ls": DASHED},
    }
    others = iter([{"color": colours.nudge, "marker": "D"}, {"color": colours.ink, "marker": "^"}] * len(rows))
    ends = []
    for name in dict.fromkeys(row["gradient"] for row in rows):
        points = sorted((row["steps"], row[quantity]) for row in rows if row["gradient"] == name)
        x, y = np.asarray(points, float).T
        look = looks.get(name) or next(others)
        axes.plot(x, y, label=name)[0].set(**look)
        ends.append((y[-1], x[-1], name, look["color"]))
    name_ends(axes, ends, decade=60)
    axes.set_xscale("log")
    axes.set_yscale("log")
    steps = sorted({row["steps"] for row in rows})
    every = max(1, -(-len(steps) // 5))
    axes.set_xticks(steps[::-every][::-1], [f"{n:,}" for n in steps[::-every][::-1]])
    axes.xaxis.set_minor_formatter(NullFormatter())
    low, high = min(row[quantity] for row in rows), max(row[quantity] for row in rows)
    axes.set_ylim(low / 2, high * 2)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 30 * low else (1,), numticks=6))
    axes.yaxis.set_minor_formatter(NullFormatter())
    form = memory if quantity == "bytes" else seconds
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: form(value)))
    axes.grid(axis="y")
    # Room for the names beside the last points.
    axes.set_xlim(steps[0] / 1.2, steps[-1] * (steps[-1] / steps[0] * 1.2) ** 0.3 if len(steps) > 1 else steps[0] * 3)
    set_labels(axes, _TITLES[quantity], "steps")
    return axes
