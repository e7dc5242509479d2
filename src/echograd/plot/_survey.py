"""What imperfections of a machine cost its gradient, over their strength."""

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np
from matplotlib.axes import Axes

from .._internal._errors import ArgumentError, ArgumentTypeError
from ._check import check_axes, rows_of
from ._style import headed, name_ends, theme


class _Survey(Protocol):
    """What is drawn of a survey."""

    @property
    def rows(self) -> Sequence[Any]: ...

    @property
    def floor(self) -> float: ...


_HEADS = {
    "error": "Error of the gradient, against the machine as it is",
    "ideal_error": "Error of the gradient, against the ideal model",
}
_MARKERS = "osD^vP*Xh"


def device_survey(axes: Axes, survey: _Survey, against: Literal["error", "ideal_error"] = "error") -> Axes:
    """Draw the error of a machine's gradient over the strength of each imperfection, both axes logarithmic.

    Solid, in the colour of a nudge, is what averaging does not help: more than half of the error at the largest
    strength is bias. Dashed, in that of an echo, is what averages out over experiments. The level line is a perfect
    machine, by its nudge alone.

    Args:
        axes: where to draw.
        survey: what `echograd.device.survey` returned.
        against: which exact gradient the error is taken against: `"error"`, that of the machine as realised, or
            `"ideal_error"`, that of the ideal model.

    Returns:
        The axes.

    Raises:
        TypeError: for something else than a survey.
        ValueError: for another error, or if there is nothing to draw.

    Example:
        ```python
        figure, axes = plot.figure(5.5, 3.5)
        plot.device_survey(axes, eg.device.survey(loss, model, start, dt=0.1, steps=100, nudge=eg.Symmetric(0.1)))
        ```
    """
    check_axes("plot.device_survey", axes)
    if against not in _HEADS:
        raise ArgumentError(f"plot.device_survey(against={against!r}): choose 'error' or 'ideal_error'.")
    source = "what echograd.device.survey returned"
    if not hasattr(survey, "rows") or not hasattr(survey, "floor"):
        raise ArgumentTypeError(
            f"plot.device_survey: got a {type(survey).__name__}, and needs {source}: rows and a floor."
        )
    keys = ("imperfection", "strength", "error", "bias", against)
    found = rows_of("plot.device_survey", survey, keys, source) if survey.rows else []
    rows = [row for row in found if np.isfinite(row[against]) and row[against] > 0]
    if not rows:
        raise ArgumentError("plot.device_survey: no imperfection gave a gradient with an error to draw.")
    colours, ends = theme(), []
    for i, name in enumerate(dict.fromkeys(row["imperfection"] for row in rows)):
        mine = sorted((row for row in rows if row["imperfection"] == name), key=lambda row: row["strength"])
        systematic = mine[-1]["bias"] > 0.5 * mine[-1]["error"]
        colour = colours.nudge if systematic else colours.echo
        x, y = ([row[key] for row in mine] for key in ("strength", against))
        (line,) = axes.plot(x, y, color=colour, marker=_MARKERS[i % len(_MARKERS)], label=name)
        line.set_linestyle("-" if systematic else (0, (4, 1.5)))
        ends.append((y[-1], x[-1], name, colour))
    axes.axhline(survey.floor, color=colours.muted, lw=0.9, label="perfect machine")
    axes.set_xscale("log")
    axes.set_yscale("log")
    low, high = min(row["strength"] for row in rows), max(row["strength"] for row in rows)
    if survey.floor > 0:
        ends.append((survey.floor, high, "perfect machine", colours.muted))
    name_ends(axes, ends, decade=35)
    axes.set_xlim(low / 1.3, high * (max(high / low, 10.0)) ** 0.45)  # room for the names
    axes.grid(axis="y")
    headed(axes, _HEADS[against], "strength of the imperfection")
    return axes
