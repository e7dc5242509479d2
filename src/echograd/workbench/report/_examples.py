"""The examples of a report: test cases with the prediction of the model."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from echograd import plot

from ..data import Dataset, load
from ..training import Run
from ._html import isolated
from ._page import Drawing, Page, draw

_MOST_CLASSES = 6


def examples(page: Page, run: Run, outputs: np.ndarray) -> None:
    """Draw test cases with the prediction of the model."""
    dataset, test = run.dataset, run.dataset.test
    if dataset.task == "regression" and test.targets.size != len(test):
        return
    page.heading("Examples")
    if dataset.task == "regression":
        order = np.argsort(np.abs(outputs.ravel() - test.targets.ravel()))
        cases = [int(order[i]) for i in (0, len(order) // 2, -1)]
        caption = "The best, the median and the worst prediction of a test case."
        page.figures(cases_drawing("examples", run, outputs, cases, caption=caption))
        return
    right, _ = choose(outputs, test.targets, dataset.classes)
    if not right:
        page.text("No prediction of a test case is right.")
        return
    page.text("Test cases with their true class (left), and the predicted class with its probability (right).")
    caption = "For every class, the correct case of median probability. The hard cases follow below."
    page.figures(cases_drawing("examples-right", run, outputs, right, caption=caption))
    if signals_of(dataset) is not dataset:
        page.text(
            "The plots show the signals; the inputs of the model are computed from them (",
            isolated(", ".join(dataset.channel_names)),
            ").",
            kind="remark",
        )


def cases_drawing(name: str, run: Run, outputs: np.ndarray, cases: Sequence[int], *, caption: str) -> Drawing:
    """Draw test cases below each other, with truth and prediction."""
    source = signals_of(run.dataset)

    def paint(axes: Any, _: Any) -> None:
        for case, ax in zip(cases, np.atleast_1d(axes), strict=True):
            plot.signal_with_prediction(
                ax,
                source.test.inputs[case, : _length(source, case)],
                sample_rate=source.sample_rate,
                channel_names=source.channel_names,
                **verdict(run.dataset, outputs, case),
            )
            if ax is not np.atleast_1d(axes)[-1]:
                ax.set_xlabel("")

    return draw(name, paint, caption=caption, alt=caption, height=0.35 + 1.35 * len(cases), rows=len(cases))


def signals_of(dataset: Dataset) -> Dataset:
    """Return the data set to draw: for an envelope, the data set of its signals."""
    if dataset.name.startswith("ecg-") and dataset.name.endswith("-envelope"):
        return load(dataset.name.removesuffix("-envelope"))
    return dataset


def _length(dataset: Dataset, case: int) -> int:
    return int(dataset.test.lengths[case])


def verdict(dataset: Dataset, outputs: np.ndarray, case: int) -> dict[str, Any]:
    """Return truth and prediction of a test case as text."""
    truth = dataset.test.targets[case]
    if dataset.task == "regression":
        return {"truth": f"true {float(truth.ravel()[0]):.4g}", "prediction": f"{float(outputs[case].ravel()[0]):.4g}"}
    named = int(outputs[case].argmax())
    return {
        "truth": dataset.class_names[int(truth)],
        "prediction": dataset.class_names[named],
        "right": bool(named == truth),
        "probability": float(probabilities(outputs)[case, named]),
    }


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Return the probabilities of the classes."""
    e = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def log_odds(logits: np.ndarray) -> np.ndarray:
    """Return log p / (1 - p) of every class, exact for probabilities close to 0 and 1 too."""
    z = logits.astype(np.float64)
    odds = np.empty_like(z)
    for label in range(z.shape[1]):
        others = np.delete(z, label, 1)
        top = others.max(1, keepdims=True) if others.size else np.zeros((len(z), 1))
        rest = top[:, 0] + np.log(np.exp(others - top).sum(1)) if others.size else np.full(len(z), -np.inf)
        odds[:, label] = z[:, label] - rest
    return odds


def choose(logits: np.ndarray, targets: np.ndarray, classes: int) -> tuple[list[int], list[int]]:
    """Choose one correct and one wrong case of every class (of the first classes, if there are many)."""
    p, named = probabilities(logits), logits.argmax(1)
    right, wrong = [], []
    for label in range(min(classes, _MOST_CLASSES)):
        good = np.flatnonzero((targets == label) & (named == label))
        if len(good):
            right.append(int(good[np.argsort(p[good, label])[len(good) // 2]]))
        bad = np.flatnonzero((targets == label) & (named != label))
        if len(bad):
            wrong.append(int(bad[p[bad].max(1).argmax()]))
    return right, wrong
