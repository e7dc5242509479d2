"""Calibration: whether a probability of 80 % is right in 80 % of the cases."""

import dataclasses
from typing import Any

import numpy as np

from echograd.plot import Theme

from ..training import Run
from ._examples import probabilities
from ._format import count
from ._html import tag
from ._page import Page, draw

_BINS = 10


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Cases in bins of equal width of their confidence, the probability of the predicted class.

    Attributes:
        edges: limits of the bins, from 0 to 1.
        counts: number of cases in every bin.
        confidence: mean confidence in every bin; NaN in an empty one.
        accuracy: share of right predictions in every bin; NaN in an empty one.
    """

    edges: np.ndarray
    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def error(self) -> float:
        """The expected calibration error: the mean over all cases of the distance of their bin from the diagonal."""
        return float(np.nansum(self.counts * np.abs(self.accuracy - self.confidence)) / self.counts.sum())

    @property
    def excess(self) -> float:
        """Mean confidence minus accuracy, over all cases: positive for an overconfident model."""
        return float(np.nansum(self.counts * (self.confidence - self.accuracy)) / self.counts.sum())


def calibration(confidence: np.ndarray, right: np.ndarray, bins: int = _BINS) -> Calibration:
    """Sort cases into bins by their confidence.

    Args:
        confidence: probability of the predicted class of every case, shape (cases,).
        right: whether the prediction is right, shape (cases,).
        bins: number of bins between 0 and 1.
    """
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    counts = np.bincount(index, minlength=bins)

    def mean(values: np.ndarray) -> np.ndarray:
        total = np.bincount(index, values.astype(float), minlength=bins)
        return np.divide(total, counts, out=np.full(bins, np.nan), where=counts > 0)

    return Calibration(np.linspace(0, 1, bins + 1), counts, mean(confidence), mean(right))


def _interval(share: np.ndarray, counts: np.ndarray, z: float = 1.96) -> tuple[np.ndarray, np.ndarray]:
    """Return the 95 % interval of a share that was counted (E. B. Wilson, JASA 22 (1927) 209)."""
    middle = (share + z**2 / (2 * counts)) / (1 + z**2 / counts)
    half = z * np.sqrt(share * (1 - share) / counts + z**2 / (4 * counts**2)) / (1 + z**2 / counts)
    return middle - half, middle + half


def calibrated(page: Page, run: Run, outputs: np.ndarray) -> None:
    """Draw the reliability diagram of a classifier."""
    p, targets = probabilities(outputs), run.dataset.test.targets
    found = calibration(p.max(1), p.argmax(1) == targets)
    page.heading("Can its probabilities be trusted?")
    lean = "too sure of itself" if found.excess > 0 else "not sure enough of itself"
    page.text(
        f"The {count(len(targets), 'test case')} are sorted into bins by their confidence, the probability of the "
        "predicted class. If the probabilities can be trusted, the share of right predictions in a bin is its mean "
        "confidence: the points lie on the diagonal. Below it the model is too sure of itself, above it not sure "
        "enough. The expected calibration error, the mean distance from the diagonal over all cases, is ",
        tag("strong", f"{found.error:.3f}"),
        f". On average the model is {lean}: the mean confidence is {p.max(1).mean():.3f}, the accuracy "
        f"{(p.argmax(1) == targets).mean():.3f}.",
    )
    if run.config.class_weights:
        page.text(
            "In training every class had the same total weight. So the probabilities are those of a population in "
            "which all classes are equally frequent, and rare classes seem more probable than they are here.",
            kind="remark",
        )
    page.figures(
        draw(
            "calibration",
            lambda axes, colours: _paint(axes, colours, found),
            caption="Reliability diagram. Lines show the 95 % interval of a share that is counted on so few cases. "
            "The bars below show how many cases a bin has.",
            alt=f"Share of right predictions over confidence; the expected calibration error is {found.error:.3f}",
            height=4.4,
            rows=2,
            sharex=True,
            height_ratios=(3, 1),
        )
    )


def _paint(axes: Any, colours: Theme, found: Calibration) -> None:
    top, below = axes
    full = found.counts > 0
    x, y = found.confidence[full], found.accuracy[full]
    low, high = _interval(y, found.counts[full])
    top.plot([0, 1], [0, 1], color=colours.muted, lw=0.9, ls=(0, (4, 2)), label="trustworthy")
    top.vlines(x, low, high, color=colours.free, lw=1.4)
    top.plot(x, y, "o-", color=colours.echo, lw=1.2, label="this model")
    top.set_xlim(0, 1)
    top.set_ylim(0, 1.02)
    top.grid()
    top.set_title("Share of right predictions")
    top.legend(loc="upper left")
    width = np.diff(found.edges)
    below.bar(found.edges[:-1], found.counts, width, align="edge", color=colours.free, ec=colours.paper, lw=1)
    below.set_title("Number of cases")
    below.set_xlabel("confidence (probability of the predicted class)")
    below.grid(axis="y")
