"""The house style: two themes, one of which is in force at a time, and figures without pyplot.

Colours mean the same in every figure: blue is an echo (and validation, and what is right), orange-red is a nudge (and
what is wrong), greys are what things are compared with. All are told apart in the common colour blindnesses, and no
figure tells by colour alone.
"""

import contextlib
import dataclasses
import io
import math
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from PIL import Image

from .._internal._errors import ArgumentError, ArgumentTypeError


@dataclasses.dataclass(frozen=True)
class Theme:
    """Colours by what they mean.

    Attributes:
        paper: the background.
        ink: text and what is measured.
        muted: tick labels, remarks, second signals.
        rule: grid lines and frames.
        free: a free run, and training.
        echo: an echo, validation, a right answer.
        nudge: a nudged echo, a wrong answer.
        backprop: backpropagation, and other things to compare with.
        deep: the dark end of the scale that shades tables.
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
        """Shades from the paper to the deepest blue."""
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
    """Return the theme in force."""
    return _current.get()


@contextlib.contextmanager
def style(name: Literal["light", "dark"] = "light") -> Iterator[Theme]:
    """Put a block of code in the house style, and leave everything as it was after it.

    Args:
        name: `"light"` or `"dark"`.

    Returns:
        A context manager that gives the `Theme`.

    Raises:
        ValueError: for another name.

    Example:
        ```python
        with plot.style("dark") as colours:
            fig, axes = plot.figure(4, 3)
            axes.plot([1, 2, 4], color=colours.echo)
        ```
    """
    if name not in THEMES:
        raise ArgumentError(f"style({name!r}): choose one of {', '.join(map(repr, THEMES))}.")
    chosen = THEMES[name]
    token = _current.set(chosen)
    try:
        with matplotlib.rc_context(_parameters(chosen)):
            yield chosen
    finally:
        _current.reset(token)


def figure(width: float, height: float, *, rows: int = 1, columns: int = 1, **grid: Any) -> tuple[Figure, Any]:
    """Make a figure with a grid of axes.

    Args:
        width: in inches. At 4 to 4.5 inches, labels stay legible on a telephone.
        height: in inches.
        rows: rows of axes.
        columns: columns of axes.
        **grid: whatever else `Figure.subplots` takes, `height_ratios` say.

    Returns:
        The figure, and its axes: one, or an array of them.

    Raises:
        TypeError: a size is not a number, or rows or columns not whole ones.
        ValueError: one of them is not positive, or not finite.
    """
    for name, inches in (("width", width), ("height", height)):
        if isinstance(inches, bool) or not isinstance(inches, int | float | np.number):
            raise ArgumentTypeError(f"figure: {name}={inches!r} is not a number of inches.")
        if not 0 < inches <= 200:
            raise ArgumentError(f"figure: {name}={inches!r}: above 0 and up to 200 inches are needed.")
    for name, count in (("rows", rows), ("columns", columns)):
        if isinstance(count, bool) or not isinstance(count, int | np.integer):
            raise ArgumentTypeError(f"figure: {name}={count!r} is not a whole number.")
        if not 1 <= count <= 100:
            raise ArgumentError(f"figure: {name}={count!r}: from 1 to 100 are needed.")
    fig = Figure(figsize=(width, height), layout="constrained")
    return fig, fig.subplots(rows, columns, **grid)


def png(fig: Figure, *, dpi: int = 200) -> bytes:
    """Return a figure as a small PNG file: its background included, its colours reduced to 256.

    Raises:
        TypeError: it is not a figure, or `dpi` not a number.
        ValueError: `dpi` is not positive, or too large.
    """
    if not isinstance(fig, Figure):
        raise ArgumentTypeError(
            f"png: {fig!r} is not a figure. plot.figure makes one, and axes know theirs: axes.figure."
        )
    if isinstance(dpi, bool) or not isinstance(dpi, int | float | np.number):
        raise ArgumentTypeError(f"png: dpi={dpi!r} is not a number of dots per inch.")
    if not 1 <= dpi <= 2400:
        raise ArgumentError(f"png: dpi={dpi!r}: from 1 to 2400 dots per inch are needed.")
    drawn, file = io.BytesIO(), io.BytesIO()
    fig.savefig(drawn, format="png", dpi=dpi)
    image = Image.open(drawn).convert("RGB")
    image.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(
        file, format="png", optimize=True, dpi=(dpi, dpi)
    )
    return file.getvalue()


def headed(axes: Axes, y: str, x: str = "") -> None:
    """Write what the vertical axis shows above it, where it is read without turning one's head."""
    axes.set_title(y)
    axes.set_xlabel(x)


def name_ends(axes: Axes, ends: Iterable[tuple[float, float, str, str]], *, decade: float) -> None:
    """Write names at the ends (y, x, name, colour) of lines, each clear of the one below it.

    The axis of y is logarithmic, with decades of about so many points.
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
        # The only family that comes with matplotlib: the same picture on every machine.
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
