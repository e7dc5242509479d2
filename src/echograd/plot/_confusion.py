"""The confusion matrix."""

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from .._internal._errors import ArgumentError, ArgumentTypeError
from ._check import check_axes, numbers
from ._style import set_labels, theme


def confusion_matrix(axes: Axes, counts: ArrayLike, classes: Sequence[str]) -> Axes:
    """Draw how often cases of each true class (rows) were predicted as each class (columns).

    A cell shows its share of the row in per cent, which also sets its shade, and the number of cases. The diagonal
    shows the recalls.

    Args:
        axes: where to draw.
        counts: shape (classes, classes); entry (i, j) counts the cases of class i that were predicted as class j.
        classes: names of the classes.

    Returns:
        The axes.

    Raises:
        ArgumentTypeError: if the counts are not numbers, or `classes` is not a sequence of names.
        ArgumentError: if the numbers of rows, columns and names differ, or a count is negative or not finite.

    Example:
        ```python
        figure, axes = plot.figure(4, 3)
        plot.confusion_matrix(axes, [[42, 3], [5, 17]], ["sinus rhythm", "atrial fibrillation"])
        ```
    """
    owner = "plot.confusion_matrix"
    check_axes(owner, axes)
    table = numbers(owner, "counts", counts)
    if isinstance(classes, str) or not isinstance(classes, Sequence):
        raise ArgumentTypeError(f"{owner}: classes={classes!r} is not a list of names.")
    n = len(classes)
    if table.shape != (n, n):
        raise ArgumentError(f"{owner}: {n} classes need a table of shape {(n, n)}; counts has shape {table.shape}.")
    if not (np.isfinite(table) & (table >= 0)).all():
        raise ArgumentError(f"{owner}: counts must be finite and not negative.")
    classes = [str(name) for name in classes]
    colours = theme()
    rows = table.sum(1, keepdims=True)
    share = np.divide(table, rows, out=np.zeros_like(table), where=rows > 0)
    axes.imshow(share, cmap=colours.scale, vmin=0, vmax=1)
    size = 8.5 if n <= 6 else max(3.0, 8.5 * 6 / n)
    if n <= 20:
        for (i, j), value in np.ndenumerate(share):
            # White text is legible on the deep end of the scale, in both themes.
            colour = ("#ffffff" if value > 0.65 else colours.ink) if table[i, j] else colours.muted
            axes.text(
                j,
                i,
                f"{100 * value:.0f} %\n{table[i, j]:.0f}" if n <= 6 else f"{100 * value:.0f}",
                ha="center",
                va="center",
                color=colour,
                size=size,
                weight="bold" if i == j else "normal",
                linespacing=1.35,
            )
    upright = n <= 4
    names = [textwrap.fill(name, 13, break_long_words=False) for name in classes]
    below = [textwrap.fill(name, 11, break_long_words=False) for name in classes] if upright else names
    if upright:
        # All labels need the same number of lines to be aligned.
        lines = max(name.count("\n") for name in below)
        below = [name + "\n " * (lines - name.count("\n")) for name in below]
    axes.set_xticks(range(n), below, rotation=0 if upright else 90, parse_math=False)
    axes.set_yticks(range(n), names, parse_math=False)
    axes.tick_params(length=0, labelsize=min(8.0, size))
    axes.spines[:].set_visible(False)
    # White gaps between the cells.
    edges = np.arange(n + 1) - 0.5
    for edge in edges:
        axes.axhline(edge, color=colours.paper, lw=2)
        axes.axvline(edge, color=colours.paper, lw=2)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(edges[-1], edges[0])
    set_labels(axes, "True class", "predicted class")
    return axes
