"""The section of a report that shows where in the series the decision was made."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap

from echograd import plot
from echograd.nn import HSSM
from echograd.plot import Theme

from ..data import Dataset
from ..training import Run
from ._attribution import channel_means, gradient_times_input, occlusion, score_of, window_edges
from ._curves import shortened
from ._examples import choose, signals_of, verdict
from ._page import Page, draw

_CASES = 4


@dataclasses.dataclass(frozen=True)
class Decision:
    """What every window of a case adds to the score.

    Attributes:
        case: index of the test case.
        edges: limits of the windows, in steps.
        strips: effect of every window, by the name of the method.
    """

    case: int
    edges: np.ndarray
    strips: dict[str, np.ndarray]


def chosen_cases(run: Run, outputs: np.ndarray) -> list[int]:
    """Return a few test cases: typical right ones, then the most confident mistakes."""
    test = run.dataset.test
    if run.dataset.task == "regression":
        order = np.argsort(np.abs(outputs.ravel() - test.targets.ravel()))
        return sorted({int(order[i]) for i in (0, len(order) // 2, -1)}, key=list(order).index)
    right, wrong = choose(outputs, test.targets, run.dataset.classes)
    return (right[: _CASES - 1] + wrong)[:_CASES]


def decisions(run: Run, outputs: np.ndarray) -> list[Decision]:
    """Measure where the model decided, for a few test cases; none if a case has several targets or only one class."""
    dataset, test = run.dataset, run.prepared.test
    classify = dataset.task == "classification"
    if (classify and dataset.classes < 2) or (not classify and test.targets.size != len(test)):
        return []
    cases = chosen_cases(run, outputs)
    few = test.take(np.asarray(cases))
    edges = [window_edges(int(n), len(cases)) for n in few.lengths]
    neutral = channel_means(run.prepared.train)
    strips: list[dict[str, np.ndarray]] = []
    for i, limits in enumerate(edges):
        score = score_of(run, int(few.targets[i]) if classify else None)
        strips.append({"masking": occlusion(score, few.take(np.asarray([i])), limits, neutral)})
    if isinstance(run.model, HSSM):
        for strip, effects in zip(strips, gradient_times_input(run, few, edges), strict=True):
            strip["gradient"] = effects
    return [Decision(*row) for row in zip(cases, edges, strips, strict=True)]


def where(page: Page, run: Run, outputs: np.ndarray, found: Sequence[Decision], rule: str | None) -> None:
    """Draw the series of some cases above strips that show which windows decided."""
    if not found:
        return
    classify = run.dataset.task == "classification"
    what = "the probability of the true class" if classify else "the prediction"
    page.heading("Where the decision was made")
    page.text(
        f"Every strip below a series shows what a window of the series adds to {what}. Blue windows raise it, orange "
        "windows lower it. The number at the right is the largest effect in the strip, which has the full colour; "
        "compare it before comparing strips.",
    )
    page.text(
        f"“Masking” replaces a window by the mean of every channel over the training cases, and runs the model again: "
        f"the effect is {what} "
        "with the window minus that without it. This is a measurement, but a masked series may be unlike all others."
        + (
            ""
            if rule is None
            else " “Gradient” is the sum over the window of the gradient times the distance of the input from that "
            f"mean: the same effect to first order, from one {rule} for all windows. The two differ where the response "
            "is not linear, for example where the model is already sure."
        ),
        kind="remark",
    )
    source, kind = signals_of(run.dataset), "class" if classify else "number"
    said = {decision.case: _short(verdict(run.dataset, outputs, decision.case)) for decision in found}
    page.figures(
        *(
            draw(
                f"where-{i + 1}",
                lambda axes, colours, decision=decision: _paint(axes, colours, source, decision, said[decision.case]),
                caption=f"Test case {decision.case}, with its true {kind} (left) and the prediction (right).",
                alt=_told(run.dataset, decision, what),
                height=1.75 + 0.22 * len(decision.strips),
                rows=2,
                height_ratios=(4, len(decision.strips)),
            )
            for i, decision in enumerate(found)
        )
    )


def _short(said: dict[str, Any]) -> dict[str, Any]:
    """Return truth and prediction as short texts, which fit above the narrow axes."""
    prediction = "right" if said.get("right") else shortened(said["prediction"], 20)
    return {**said, "truth": shortened(said["truth"], 20), "prediction": prediction}


def _told(dataset: Dataset, decision: Decision, what: str) -> str:
    """Return in words where masking has the largest effect."""
    effect = decision.strips["masking"]
    best = int(np.argmax(np.abs(effect)))
    rate, unit = (dataset.sample_rate, "s") if dataset.sample_rate else (1.0, "steps")
    start, stop = decision.edges[best] / rate, decision.edges[best + 1] / rate
    return (
        f"Test case {decision.case} with strips of effects. Masking has the largest effect between {start:.4g} and "
        f"{stop:.4g} {unit}: the window changes {what} by {effect[best]:+.2g}."
    )


def _paint(axes: Any, colours: Theme, source: Dataset, decision: Decision, said: dict[str, Any]) -> None:
    top, below = axes
    length, case = int(source.test.lengths[decision.case]), decision.case
    plot.signal_with_prediction(
        top,
        source.test.inputs[case, :length],
        sample_rate=source.sample_rate,
        channel_names=source.channel_names,
        **said,
    )
    end = top.get_xlim()[1]
    top.set_xlabel("")
    top.set_xticklabels([])
    colour_map = LinearSegmentedColormap.from_list("effect", [colours.nudge, colours.paper, colours.echo])
    x = decision.edges / decision.edges[-1] * end
    for row, effect in enumerate(decision.strips.values()):
        largest = float(np.max(np.abs(effect)))
        below.pcolormesh(
            x, [row, row + 0.86], effect[None] / (largest or 1.0), cmap=colour_map, vmin=-1, vmax=1, rasterized=True
        )
        below.annotate(
            f"±{largest:.2g}",
            (1, row + 0.43),
            (4, 0),
            xycoords=below.get_yaxis_transform(),
            textcoords="offset points",
            size=7.5,
            color=colours.muted,
            va="center",
        )
    below.set_yticks([row + 0.43 for row in range(len(decision.strips))], list(decision.strips))
    below.tick_params(axis="y", length=0)
    below.set_ylim(len(decision.strips) - 0.1, -0.04)
    below.set_xlim(0, end)
    below.spines["left"].set_visible(False)
    below.set_xlabel("seconds" if source.sample_rate else "steps")
