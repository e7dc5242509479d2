"""The error of the gradient of an imperfect machine, over the strength of its imperfections."""

from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes

from .._internal import _checks
from .._internal._errors import ArgumentError, ArgumentTypeError
from ._check import check_axes, rows_of
from ._style import DASHED, MARKERS, name_ends, set_labels, theme

_TITLES = {
    "error": "Error of the gradient, against the machine as it is",
    "ideal_error": "Error of the gradient, against the ideal model",
}


def device_survey(axes: Axes, survey: Any, against: Literal["error", "ideal_error"] = "error") -> Axes:
    """Draw the error of a machine's gradient over the strength of each imperfection, both axes logarithmic.

    A line is solid, in the colour of a nudge, if averaging does not help: more than half of the error at the largest
    strength is bias. It is dashed, in the colour of an echo, if the error averages out over experiments. The level line
    is the error of a perfect machine, due to its nudge alone.

    Args:
        axes: where to draw.
        survey: the result of `eg.device.survey`.
        against: the reference of the error: `"error"` compares with the exact gradient of the machine as realised,
            `"ideal_error"` with that of the ideal model.

    Returns:
        The axes.

    Raises:
        ArgumentTypeError: if `axes` is not `Axes`, or `survey` is not a survey.
        ArgumentError: if `against` is unknown, or there is nothing to draw.

    Example:
        ```python
        figure, axes = plot.figure(5.5, 3.5)
        found = eg.device.survey(
            lambda sol: jnp.sum(sol.q[-1] ** 2), system, start, dt=0.1, steps=20, nudge=eg.Symmetric(0.1),
            imperfections={"friction": lambda strength, key: eg.device.Friction(strength)}, repeats=2,
        )
        plot.device_survey(axes, found)
        ```
    """
    check_axes("plot.device_survey", axes)
    _checks.choice("plot.device_survey", "against", against, _TITLES)
    source = "the result of echograd.device.survey"
    if not hasattr(survey, "rows") or not hasattr(survey, "floor"):
        raise ArgumentTypeError(
            f"plot.device_survey: got a {type(survey).__name__}, but needs {source}: rows and a floor."
        )
    keys = ("imperfection", "strength", "error", "bias", against)
    found = rows_of("plot.device_survey", survey, keys, source) if survey.rows else []
    rows = [row for row in found if np.isfinite(row[against]) and row[against] > 0]
    if not rows:
        raise ArgumentError("plot.device_survey: no imperfection has a positive, finite error to draw.")
    colours, ends = theme(), []
    for i, name in enumerate(dict.fromkeys(row["imperfection"] for row in rows)):
        own = sorted((row for row in rows if row["imperfection"] == name), key=lambda row: row["strength"])
        systematic = own[-1]["bias"] > 0.5 * own[-1]["error"]
        colour = colours.nudge if systematic else colours.echo
        x, y = ([row[key] for row in own] for key in ("strength", against))
        (line,) = axes.plot(x, y, color=colour, marker=MARKERS[i % len(MARKERS)], label=name)
        line.set_linestyle("-" if systematic else DASHED)
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
    set_labels(axes, _TITLES[against], "strength of the imperfection")
    return axes
