"""Learning curves."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from .._internal import _checks
from .._internal._errors import ArgumentError
from ._check import check_axes, numbers, rows_of
from ._style import DASHED, DOTTED, set_labels, theme

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
    """Draw one metric over the epochs, for training and validation cases.

    Args:
        axes: where to draw.
        history: one mapping for every epoch, `{"epoch": 1, "train": {"loss": 0.7}, "validation": {"loss": 0.6}}`.
        metric: the metric to draw; one of the two sides may lack it.
        best_epoch: epoch of the model that was kept, marked in the figure.
        baseline: value of the metric for a trivial prediction, drawn as a level line.
        baseline_label: name of the trivial prediction.

    Returns:
        The axes.

    Raises:
        ArgumentTypeError: if the history is not a list of epochs, or a value of the metric is not a number.
        ArgumentError: if no epoch has the metric, or the baseline is not a finite number.

    Example:
        ```python
        figure, axes = plot.figure(4, 3)
        history = [{"epoch": i, "train": {"loss": 1 / i}, "validation": {"loss": 2 / i}} for i in range(1, 9)]
        plot.learning_curve(axes, history, best_epoch=8)
        ```
    """
    owner = "plot.learning_curve"
    check_axes(owner, axes)
    rows_of(owner, history, ("epoch",), "the history() of a training run")
    if baseline is not None:
        baseline = _checks.constant(owner, "baseline", baseline, np.isfinite, "it must be a finite number")
    colours = theme()
    drawn = {}
    for side, label in _SIDES.items():
        found = [(row["epoch"], row.get(side)) for row in history]
        points = [(epoch, row[metric]) for epoch, row in found if isinstance(row, Mapping) and metric in row]
        if points:
            points = [(epoch, np.nan if value is None else value) for epoch, value in points]  # NaN is null in JSON
            epochs, values = numbers(owner, f"{metric!r} of the history", points, (None, 2)).T
            colour = colours.echo if side == "validation" else colours.backprop
            style = "-" if side == "validation" else DASHED
            mark = "s" if np.isfinite(values).sum() == 1 else None  # a line through one point is invisible
            axes.plot(epochs, values, color=colour, label=label, ls=style, marker=mark)
            drawn[side] = (epochs, values)
    if not drawn:
        raise ArgumentError(f"{owner}: no epoch of the history has {metric!r}.")
    set_labels(axes, metric.replace("_", " ").capitalize(), "epoch")
    axes.grid(axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    if baseline is not None:
        ends = [min(x[0] for x, _ in drawn.values()), max(x[-1] for x, _ in drawn.values())]
        if ends[0] == ends[1]:
            ends = [ends[0] - 0.5, ends[1] + 0.5]
        axes.plot(ends, [baseline] * 2, color=colours.muted, lw=0.9, ls=DOTTED, label=baseline_label)
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
