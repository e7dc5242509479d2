"""Sections of a report with one curve per class, or with the residuals of a regression."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from echograd import plot
from echograd.plot import Theme

from ..data import Dataset
from ..training import Run
from ._format import score
from ._page import Page, draw
from ._palette import line_styles
from ._rankings import Ranking

# With more classes, only the worst curves have names.
_NAMED, _WORST = 6, 4


def rates(page: Page, dataset: Dataset, found: Sequence[Ranking | None]) -> None:
    """Draw recall over false alarms and precision over recall, each class against all others."""
    known = {name: ranking for name, ranking in zip(dataset.class_names, found, strict=True) if ranking is not None}
    if not known:
        return
    page.text(
        "For another compromise between misses and false alarms, choose another threshold of the probability of a "
        "class. The curves show what every threshold gives, for one class against all others."
        + (" With two classes, their two ROC curves mirror each other and have the same area." * (len(found) == 2))
    )
    roc = {name: ranking.roc_area for name, ranking in known.items()}
    precise = {name: ranking.average_precision for name, ranking in known.items()}
    few = "" if len(known) <= _NAMED else f" The {_WORST} classes of smallest area have names; the others are thin."
    page.figures(
        draw(
            "roc",
            lambda axes, colours: _paint_roc(axes, colours, known, roc),
            caption="ROC curves: recall (share of a class that is found) over false alarms (share of the other cases "
            "that are taken for it). The number is the area: the probability that a case of the class gets a higher "
            "score than another case. 1 is perfect; 0.5, on the dashed line, is chance." + few,
            alt="ROC curves. Areas: " + _listed(roc),
            height=4.0,
        ),
        draw(
            "precision-recall",
            lambda axes, colours: _paint_precision(axes, colours, known, precise),
            caption="Precision (share of the cases taken for a class that are of it) over recall. The number is the "
            "area, called average precision. A short line at the right shows the share of the class among all cases, "
            "which is the precision of chance." + few,
            alt="Precision over recall. Average precision: " + _listed(precise),
            height=4.0,
        ),
    )


def _listed(areas: dict[str, float]) -> str:
    return ", ".join(f"{name} {score(area)}" for name, area in areas.items())


def _styles(areas: dict[str, float], colours: Theme) -> dict[str, dict[str, Any]]:
    """Return the line of every class: with a name in the legend, or thin if there are too many classes."""
    named = list(areas) if len(areas) <= _NAMED else sorted(areas, key=lambda name: areas[name])[:_WORST]
    made = {name: {"color": colours.free, "lw": 0.6, "zorder": 1.5} for name in areas if name not in named}
    for name, style in zip(named, line_styles(colours, len(named)), strict=True):
        made[name] = {**style, "label": f"{in_legend(name)}, {areas[name]:.3f}"}
    return made


def shortened(name: str, most: int = 28) -> str:
    """Return a name, cut if it is long."""
    return name if len(name) <= most else name[: most - 1] + "…"


def in_legend(name: str, most: int = 28) -> str:
    """Return a name for a legend, in which a dollar sign would begin mathematics."""
    return shortened(name, most).replace("$", r"\$")


def _paint_roc(axes: Any, colours: Theme, known: dict[str, Ranking], areas: dict[str, float]) -> None:
    axes.plot([0, 1], [0, 1], color=colours.muted, lw=0.9, ls=(0, (4, 2)))
    for name, style in _styles(areas, colours).items():
        axes.plot(known[name].false_alarms, known[name].recall, **style)
    _finish(axes, "Recall (share of 1)", "false alarms (share of 1)", "lower right")


def _paint_precision(axes: Any, colours: Theme, known: dict[str, Ranking], areas: dict[str, float]) -> None:
    styles = _styles(areas, colours)
    for name, style in styles.items():
        found = known[name]
        axes.plot(found.recall, found.precision, drawstyle="steps-pre", **style)
        if "label" in style:
            axes.plot([0.97, 1.02], [found.share] * 2, color=style["color"], lw=1.2)
    _finish(axes, "Precision (share of 1)", "recall (share of 1)", "lower left")


def _finish(axes: Any, title: str, label: str, place: str) -> None:
    axes.set_xlim(-0.01, 1.02)
    axes.set_ylim(-0.01, 1.02)
    axes.set_title(title)
    axes.set_xlabel(label)
    axes.grid()
    axes.legend(loc=place)


def regression(page: Page, run: Run, outputs: np.ndarray) -> None:
    """Draw predicted against true numbers, and the residuals."""
    truth, found = valid_pairs(run, outputs)
    residual = found - truth
    page.text(
        f"The residual is the prediction minus the true number, in the unit of the targets. Its mean is "
        f"{residual.mean():.3g}, its standard deviation {residual.std():.3g}. A mean far from 0 is a constant error. A "
        "slope or a bend shows numbers for which the model errs in one direction."
    )
    page.figures(
        draw(
            "predictions",
            lambda axes, _: plot.predicted_against_true(axes, truth, found),
            caption="Predicted against true numbers of the test cases. On the dashed line they agree.",
            alt="Scatter of predicted against true numbers",
            height=4.0,
        ),
        draw(
            "residuals",
            lambda axes, colours: _paint_residuals(axes, colours, truth, residual),
            caption="Residuals over the true numbers, with their mean in ten groups of equal size (line), and how "
            "often a residual occurs.",
            alt=f"Residuals over true numbers; mean {residual.mean():.3g}, standard deviation {residual.std():.3g}",
            height=4.4,
            rows=2,
            height_ratios=(3, 2),
        ),
    )


def valid_pairs(run: Run, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return true and predicted numbers of the test cases, without those of masked steps."""
    test = run.dataset.test
    counts = np.ones(test.targets.shape, bool)
    if every := run.shapes.every:
        counts = np.broadcast_to(test.mask[:, every - 1 :: every, None], test.targets.shape)
    return test.targets[counts].astype(float), np.asarray(outputs, float).reshape(test.targets.shape)[counts]


def _paint_residuals(axes: Any, colours: Theme, truth: np.ndarray, residual: np.ndarray) -> None:
    top, below = axes
    top.axhline(0, color=colours.muted, lw=0.9, ls=(0, (4, 2)))
    top.plot(truth, residual, "o", color=colours.echo, ms=3, mew=0, alpha=max(0.15, min(0.8, 400 / truth.size)))
    groups = np.array_split(np.argsort(truth, kind="stable"), min(10, max(truth.size // 5, 1)))
    means = [(truth[group].mean(), residual[group].mean()) for group in groups]
    top.plot(*np.transpose(means), "s-", color=colours.nudge, lw=1.2, ms=4)
    top.set_title("Residual (unit of the targets)")
    top.set_xlabel("true number (unit of the targets)")
    top.grid()
    below.hist(residual, min(40, max(8, int(truth.size**0.5))), color=colours.free, ec=colours.paper, lw=0.5)
    below.axvline(0, color=colours.muted, lw=0.9, ls=(0, (4, 2)))
    below.set_title("Number of residuals")
    below.set_xlabel("residual (unit of the targets)")
    below.grid(axis="y")
