"""What a gradient costs over the number of steps."""

import math
from collections.abc import Sequence
from typing import Any, Literal, TypedDict

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from .._internal._errors import ArgumentError
from .._internal._format import memory, seconds
from ._check import check_axes, rows_of
from ._style import headed, name_ends, theme


class CostRow(TypedDict):
    """What one gradient costs at one number of steps.

    Keys: `gradient`, a name; `steps`; `bytes`, compiled temporary memory; `seconds`, the median of repeats.
    """

    gradient: str
    steps: int
    bytes: int
    seconds: float


_HEADS = {"bytes": "Working memory", "seconds": "Time of a gradient"}


def _positive(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and bool(0 < value < math.inf)


def costs(axes: Axes, rows: Sequence[CostRow], quantity: Literal["bytes", "seconds"]) -> Axes:
    """Draw memory or time of gradients over the number of steps, both axes logarithmic.

    Args:
        axes: where to draw.
        rows: measurements.
        quantity: which of them.

    Returns:
        The axes.

    Raises:
        TypeError: the rows are no rows.
        ValueError: there are no rows, the quantity is another, or a number is not positive.
    """
    check_axes("costs", axes)
    if quantity not in _HEADS:
        raise ArgumentError(f"costs: quantity={quantity!r}: choose 'bytes' or 'seconds'.")
    rows = rows_of("costs", rows, ("gradient", "steps", quantity), "what echograd.workbench.report.measure returned")
    if not all(_positive(row[quantity]) and _positive(row["steps"]) for row in rows):
        raise ArgumentError(f"costs: steps and {quantity} must be positive to be drawn on a logarithmic axis.")
    colours = theme()
    looks: dict[str, dict[str, Any]] = {
        "echo": {"color": colours.echo, "marker": "o"},
        "backprop": {"color": colours.backprop, "marker": "s", "ls": (0, (4, 1.5))},
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
    headed(axes, _HEADS[quantity], "steps")
    return axes
