"""Learning curves."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from .._internal._errors import ArgumentError
from ._check import check_axes, numbers, real, rows_of
from ._style import headed, theme

_SIDES = {"train": "training", "validation": "validation"}


def learning_curve(
    axes: Axes,
    history: Sequence[Mapping[str, Any]],
    metric: str = "loss",
    *,
    best_epoch: int | None = None,
    baseline: float | None = None,
    baseline_label: str = "majority class",
) -> Axes:
    """Draw one metric over the epochs, on training and validation cases where both have it.

    Args:
        axes: where to draw.
        history: one mapping for every epoch, `{"epoch": 1, "train": {"loss": 0.7}, "validation": {"loss": 0.6}}`.
        metric: which number to draw.
        best_epoch: epoch of the model that was kept, which is marked.
        baseline: value of the metric without having learned anything, drawn as a level.
        baseline_label: what has that value.

    Returns:
        The axes.

    Raises:
        TypeError: the history is no list of epochs, or a value of the metric no number.
        ValueError: no epoch has the metric.
    """
    check_axes("learning_curve", axes)
    rows_of("learning_curve", history, ("epoch",), "the history() of a training run")
    baseline = None if baseline is None else real("learning_curve", "baseline", baseline)
    colours = theme()
    drawn = {}
    for side, label in _SIDES.items():
        told = [(row["epoch"], row.get(side)) for row in history]
        points = [(epoch, found[metric]) for epoch, found in told if isinstance(found, Mapping) and metric in found]
        if points:
            points = [(epoch, np.nan if value is None else value) for epoch, value in points]  # as files have NaN
            epochs, values = numbers("learning_curve", f"{metric!r} of the history", points, (None, 2)).T
            colour = colours.echo if side == "validation" else colours.backprop
            style = "-" if side == "validation" else (0, (4, 1.5))
            mark = "s" if np.isfinite(values).sum() == 1 else None  # a line through one point is not seen
            axes.plot(epochs, values, color=colour, label=label, ls=style, marker=mark)
            drawn[side] = (epochs, values)
    if not drawn:
        raise ArgumentError(f"learning_curve: no epoch of the history has {metric!r}.")
    headed(axes, metric.replace("_", " ").capitalize(), "epoch")
    axes.grid(axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    if baseline is not None:
        ends = [min(x[0] for x, _ in drawn.values()), max(x[-1] for x, _ in drawn.values())]
        if ends[0] == ends[1]:
            ends = [ends[0] - 0.5, ends[1] + 0.5]
        axes.plot(ends, [baseline] * 2, color=colours.muted, lw=0.9, ls=(0, (1, 2)), label=baseline_label)
    if best_epoch is not None:
        epochs, values = drawn.get("validation", drawn.get("train"))  # pyright: ignore[reportGeneralTypeIssues]
        if (here := epochs == best_epoch).any():
            axes.plot(epochs[here], values[here], "o", color=colours.echo, mec=colours.paper, ms=7, label="kept")
    finite = np.concatenate([values for _, values in drawn.values()])
    finite = finite[np.isfinite(finite)]
    if metric == "loss" and finite.size and finite.min() > 0 and finite.max() > 20 * finite.min():
        axes.set_yscale("log")
    axes.legend()
    return axes
