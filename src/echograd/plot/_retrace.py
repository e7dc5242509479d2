"""Echoes that retrace a trajectory, or leave it."""

from collections.abc import Callable
from typing import Any

import matplotlib.patheffects as effects
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba

from .._internal._errors import ArgumentTypeError
from ._check import check_axes, numbers
from ._style import set_labels, theme

Path = Float[np.ndarray, "nodes 2"]


def echo_path(
    axes: Axes,
    forward: Path,
    echo: Path,
    nudged: Path | None = None,
    *,
    potential: Callable[[Any, Any], Any] | None = None,
    levels: Any = 10,
    equal: bool = True,
    names: tuple[str, str] = ("first coordinate", "second coordinate"),
) -> Axes:
    """Draw a path in the plane, its echo on top of it, and a nudged echo that leaves it.

    Args:
        axes: where to draw.
        forward: nodes 0..N of the free run; the columns are two coordinates, or a coordinate and its momentum.
        echo: nodes N..0 of the echo, in the order of its run.
        nudged: nodes N..0 of an echo under a finite nudge.
        potential: function of two coordinate arrays, drawn as contour lines.
        levels: number of contours, or their values.
        equal: whether both coordinates have the same scale.
        names: names of the two coordinates, with their units.

    Returns:
        The axes, without frame and numbers.

    Raises:
        ArgumentTypeError: if a path is not real numbers, or the potential is not a function.
        ArgumentError: if a path has another shape, or a number that is not finite.

    Example:
        ```python
        figure, axes = plot.figure(4, 3)
        path = np.stack([np.cos(np.arange(9)), np.sin(np.arange(9))], axis=1)
        plot.echo_path(axes, forward=path, echo=path[::-1])
        ```
    """
    owner = "plot.echo_path"
    check_axes(owner, axes)
    given = {"forward": forward, "echo": echo, **({} if nudged is None else {"nudged": nudged})}
    paths = {name: numbers(owner, name, path, (None, 2), finite=True) for name, path in given.items()}
    if potential is not None and not callable(potential):
        raise ArgumentTypeError(f"{owner}: potential={potential!r} is not a function of two arrays.")
    colours = theme()
    forward, echo, nudged = paths["forward"], paths["echo"], paths.get("nudged")
    seen = np.concatenate(list(paths.values()))
    low, high = seen.min(0), seen.max(0)
    room = 0.08 * (np.full(2, (high - low).max()) if equal else high - low)
    room = np.where(room > 0, room, 1.0)
    if potential is not None:
        x, y = np.meshgrid(*np.linspace(low - 3 * room, high + 3 * room, 240).T)
        axes.contour(x, y, potential(x, y), levels=levels, colors=colours.rule, linewidths=0.7, zorder=0)
    # The free run darkens with time.
    segments = np.stack([forward[:-1], forward[1:]], 1)
    shade = np.tile(to_rgba(colours.free), (len(segments), 1))
    shade[:, 3] = np.linspace(0.35, 1.0, len(segments))
    axes.add_collection(LineCollection(list(segments), colors=shade, linewidths=4.5, capstyle="round"))
    axes.plot([], [], color=colours.free, lw=4.5, label="forward")
    axes.plot(*echo.T, color=colours.echo, lw=1.3, label="echo", zorder=3)
    if nudged is not None:
        axes.plot(*nudged.T, color=colours.nudge, lw=1.2, label="nudged echo", zorder=4)
    for point, mark in ((forward[0], "start"), (forward[-1], "end")):
        axes.plot(
            *point, "o", ms=6.5, color=colours.ink if mark == "start" else colours.paper, mec=colours.ink, zorder=5
        )
        text = axes.annotate(mark, point, (7, 6), textcoords="offset points", size=8.5, zorder=6)
        text.set_path_effects([effects.withStroke(linewidth=2.5, foreground=colours.paper)])
    axes.set_xlim(low[0] - room[0], high[0] + room[0])
    axes.set_ylim(low[1] - room[1], high[1] + room[1])
    axes.set_aspect("equal" if equal else "auto")
    axes.spines[:].set_visible(False)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel(names[0])
    axes.set_ylabel(names[1])
    return axes


def _checked_curves(owner: str, axes: Any, t: Any, **curves: Any) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return times, and curves with one number for each of them."""
    check_axes(owner, axes)
    times = numbers(owner, "t", t, (None,), finite=True)
    return times, {name: numbers(owner, name, x, (len(times),)) for name, x in curves.items()}


def echo_in_time(
    axes: Axes,
    t: Float[np.ndarray, " nodes"],
    forward: Float[np.ndarray, " nodes"],
    echo: Float[np.ndarray, " nodes"],
    nudged: Float[np.ndarray, " nodes"] | None = None,
    *,
    quantity: str = "Position of an oscillator",
    unit: str = "seconds",
) -> Axes:
    """Draw a coordinate over time: the free run, the echo on top of it, and a nudged echo that leaves it.

    Args:
        axes: where to draw.
        t: times of nodes 0..N.
        forward: the coordinate of the free run at these times.
        echo: the coordinate of the echo at nodes 0..N, the reverse of the order of its run.
        nudged: the coordinate of an echo under a finite nudge, in the same order.
        quantity: name of the coordinate, with its unit.
        unit: unit of time.

    Returns:
        The axes.

    Raises:
        ArgumentTypeError: if a curve is not real numbers.
        ArgumentError: if the number of times and the length of a curve differ.

    Example:
        ```python
        figure, axes = plot.figure(4, 3)
        t = 0.1 * np.arange(50)
        plot.echo_in_time(axes, t, np.cos(t), np.cos(t)[::-1])
        ```
    """
    given = {"forward": forward, "echo": echo, **({} if nudged is None else {"nudged": nudged})}
    t, curves = _checked_curves("plot.echo_in_time", axes, t, **given)
    colours = theme()
    axes.plot(t, curves["forward"], color=colours.free, lw=4.0, label="forward")
    axes.plot(t, curves["echo"], color=colours.echo, lw=1.2, label="echo")
    if nudged is not None:
        axes.plot(t, curves["nudged"], color=colours.nudge, lw=1.0, label="nudged echo")
    axes.margins(x=0.01)
    axes.grid(axis="y")
    set_labels(axes, quantity, unit)
    # Make room for the legend above the curves.
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.2 * (high - low))
    axes.legend(loc="upper right", ncols=3, columnspacing=1.2)
    return axes


def departure(
    axes: Axes,
    t: Float[np.ndarray, " nodes"],
    echo: Float[np.ndarray, " nodes"],
    nudged: Float[np.ndarray, " nodes"],
    *,
    unit: str = "seconds",
) -> Axes:
    """Draw how far an echo and a nudged echo are from the free run, on a logarithmic axis.

    Args:
        axes: where to draw.
        t: times of nodes 0..N.
        echo: distance of the un-nudged echo from the free run, relative to the size of the free run. Zeros are not
            drawn.
        nudged: distance of the nudged echo.
        unit: unit of time.

    Returns:
        The axes.

    Raises:
        ArgumentTypeError: if a distance is not real numbers.
        ArgumentError: if the number of times and that of distances differ.

    Example:
        ```python
        figure, axes = plot.figure(4, 3)
        t = 0.1 * np.arange(50)
        plot.departure(axes, t, echo=1e-15 * np.exp(-t), nudged=1e-3 * np.exp(-t))
        ```
    """
    t, curves = _checked_curves("plot.departure", axes, t, echo=echo, nudged=nudged)
    colours = theme()
    for name, colour, label in (("nudged", colours.nudge, "nudged echo"), ("echo", colours.echo, "echo")):
        values = curves[name]
        axes.plot(t, np.where(values > 0, values, np.nan), color=colour, lw=1.2, label=label)
    axes.set_yscale("log")
    axes.margins(x=0.01)
    axes.grid(axis="y")
    set_labels(axes, "Distance from the forward run, relative", unit)
    axes.legend()
    return axes
