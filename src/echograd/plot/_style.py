"""The house style: a light and a dark theme, and figures without pyplot.

Colours have the same meaning in every figure. Blue is an echo, validation, or a right answer. Orange-red is a nudge or
a wrong answer. Grey is a reference. People with the common colour blindnesses can distinguish them, and no figure
relies on colour alone.
"""

import contextlib
import dataclasses
import io
import math
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from PIL import Image

from .._internal import _checks

DASHED = (0, (4, 1.5))
DOTTED = (0, (1, 2))
MARKERS = "osD^vP*Xh"


@dataclasses.dataclass(frozen=True)
class Theme:
    """Colours by their meaning.

    Attributes:
        paper: the background.
        ink: text and measured values.
        muted: tick labels, remarks, secondary signals.
        rule: grid lines and frames.
        free: a free run, and training.
        echo: an echo, validation, a right answer.
        nudge: a nudged echo, a wrong answer.
        backprop: backpropagation, and other references.
        deep: the dark end of the scale that shades tables.

    Example: see `plot.style`.
    """

    paper: str
    ink: str
    muted: str
    rule: str
    free: str
    echo: str
    nudge: str
    backprop: str
    deep: str

    @property
    def scale(self) -> LinearSegmentedColormap:
        """Colour map from the paper to the deepest blue."""
        return LinearSegmentedColormap.from_list("echograd", [self.paper, self.deep])


THEMES = {
    "light": Theme(
        paper="#ffffff",
        ink="#1b2130",
        muted="#5c6473",
        rule="#dfe3e8",
        free="#b3bac5",
        echo="#0072b2",
        nudge="#d55e00",
        backprop="#6b7280",
        deep="#1f6fae",
    ),
    "dark": Theme(
        paper="#15181e",
        ink="#e8eaee",
        muted="#9aa3b0",
        rule="#2c323c",
        free="#5d6675",
        echo="#56b4e9",
        nudge="#f08a3c",
        backprop="#a7afbb",
        deep="#3f93cf",
    ),
}
_current: ContextVar[Theme] = ContextVar("theme", default=THEMES["light"])


def theme() -> Theme:
    """Return the current theme."""
    return _current.get()


@contextlib.contextmanager
def style(name: Literal["light", "dark"] = "light") -> Iterator[Theme]:
    """Apply the house style in a block of code, and restore the previous style after it.

    Args:
        name: `"light"` or `"dark"`.

    Returns:
        A context manager that yields the `Theme`.

    Raises:
        ArgumentError: if the name is unknown.

    Example:
        ```python
        with plot.style("dark") as colours:
            fig, axes = plot.figure(4, 3)
            axes.plot([1, 2, 4], color=colours.echo)
        ```
    """
    chosen = THEMES[_checks.choice("plot.style", "name", name, THEMES)]
    token = _current.set(chosen)
    try:
        with matplotlib.rc_context(_parameters(chosen)):
            yield chosen
    finally:
        _current.reset(token)


def figure(width: float, height: float, *, rows: int = 1, columns: int = 1, **grid: Any) -> tuple[Figure, Any]:
    """Make a figure with a grid of axes.

    Args:
        width: width in inches, at most 200. At 4 to 4.5 inches, labels are legible on a phone.
        height: height in inches, at most 200.
        rows: number of rows of axes, at most 100.
        columns: number of columns of axes, at most 100.
        **grid: other arguments of `Figure.subplots`, for example `height_ratios`.

    Returns:
        The figure, and its axes or an array of its axes.

    Raises:
        ArgumentError: if an argument is not a number within these bounds.

    Example:
        ```python
        figure, (left, right) = plot.figure(8, 3, columns=2)
        ```
    """
    for name, inches in (("width", width), ("height", height)):
        limit = "it must be above 0 and at most 200 inches"
        _checks.constant("plot.figure", name, inches, lambda x: 0 < x <= 200, limit)
    for name, count in (("rows", rows), ("columns", columns)):
        _checks.integer("plot.figure", name, count, most=100, what=f"the number of {name}")
    fig = Figure(figsize=(width, height), layout="constrained")
    return fig, fig.subplots(rows, columns, **grid)


def png(fig: Figure, *, dpi: int = 200) -> bytes:
    """Return a figure with its background as a small PNG file of 256 colours.

    Args:
        fig: the figure.
        dpi: dots per inch, from 1 to 2400.

    Returns:
        The bytes of the file.

    Raises:
        ArgumentTypeError: if `fig` is not a figure.
        ArgumentError: if `dpi` is not a number within these bounds.

    Example:
        ```python
        figure, axes = plot.figure(4, 3)
        data = plot.png(figure)
        ```
    """
    _checks.instance("plot.png", "fig", fig, Figure, "a figure. Use plot.figure, or axes.figure of existing axes")
    _checks.constant("plot.png", "dpi", dpi, lambda x: 1 <= x <= 2400, "it must be from 1 to 2400 dots per inch")
    drawn, file = io.BytesIO(), io.BytesIO()
    fig.savefig(drawn, format="png", dpi=dpi)
    image = Image.open(drawn).convert("RGB")
    image.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(
        file, format="png", optimize=True, dpi=(dpi, dpi)
    )
    return file.getvalue()


def set_labels(axes: Axes, y: str, x: str) -> None:
    """Label the axes. The label of the vertical axis is the title, where it is horizontal."""
    axes.set_title(y)
    axes.set_xlabel(x)


def name_ends(axes: Axes, ends: Iterable[tuple[float, float, str, str]], *, decade: float) -> None:
    """Write names at the ends (y, x, name, colour) of lines, shifted up until they do not overlap.

    The vertical axis is logarithmic, and `decade` is the approximate length of a decade in points.
    """
    below = -math.inf
    for y, x, name, colour in sorted(ends):
        lift = max(0.0, below + 10 - decade * math.log10(y))
        below = decade * math.log10(y) + lift
        axes.annotate(name, (x, y), (6, lift), textcoords="offset points", color=colour, va="center")


def _parameters(colours: Theme) -> dict[Any, Any]:
    return {
        "figure.facecolor": colours.paper,
        "savefig.facecolor": colours.paper,
        "axes.facecolor": colours.paper,
        # The family that comes with matplotlib gives the same picture everywhere.
        "font.family": "DejaVu Sans",
        "mathtext.fontset": "dejavusans",
        "font.size": 8.5,
        "axes.titlesize": 9,
        "axes.titlelocation": "left",
        "axes.titlepad": 7,
        "axes.titlecolor": colours.ink,
        "axes.labelsize": 8.5,
        "axes.labelcolor": colours.muted,
        "axes.labelpad": 3,
        "xtick.labelsize": 8,
        "ytick.labelsize": 8,
        "text.color": colours.ink,
        "axes.edgecolor": colours.muted,
        "axes.linewidth": 0.7,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.color": colours.rule,
        "ytick.color": colours.rule,
        "xtick.labelcolor": colours.muted,
        "ytick.labelcolor": colours.muted,
        "xtick.major.size": 3,
        "ytick.major.size": 3,
        "xtick.minor.size": 0,
        "ytick.minor.size": 0,
        "axes.axisbelow": True,
        "grid.color": colours.rule,
        "grid.linewidth": 0.6,
        "lines.linewidth": 1.6,
        "lines.solid_capstyle": "round",
        "lines.markersize": 4.5,
        "legend.frameon": False,
        "legend.fontsize": 8,
        "legend.handlelength": 1.6,
        "legend.borderaxespad": 0.2,
        "figure.constrained_layout.h_pad": 0.06,
        "figure.constrained_layout.w_pad": 0.06,
    }
