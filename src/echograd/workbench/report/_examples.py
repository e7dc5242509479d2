"""The examples of a report: test cases with the prediction of the model."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from echograd import plot

from ..data import Dataset, load
from ..training import Run
from ._html import isolated
from ._page import Page, draw

_MOST_CLASSES = 6


def examples(page: Page, run: Run, outputs: np.ndarray) -> None:
    """Draw test cases with the prediction of the model."""
    dataset, test = run.dataset, run.dataset.test
    if dataset.task == "regression" and test.targets.size != len(test):
        return
    source = _signals(dataset)
    signals, rate, channels = source.test.inputs, source.sample_rate, source.channel_names
    page.heading("Examples")

    def paint(cases: Sequence[int], axes: Any) -> None:
        for case, ax in zip(cases, np.atleast_1d(axes), strict=True):
            plot.signal_with_prediction(
                ax,
                signals[case, : _length(source, case)],
                sample_rate=rate,
                channel_names=channels,
                **_verdict(dataset, outputs, case),
            )
            if ax is not np.atleast_1d(axes)[-1]:
                ax.set_xlabel("")

    def drawing(name: str, cases: Sequence[int], caption: str) -> Any:
        return draw(
            name,
            lambda axes: paint(cases, axes),
            caption=caption,
            alt=caption,
            height=0.35 + 1.35 * len(cases),
            rows=len(cases),
        )

    if dataset.task == "regression":
        error = np.abs(outputs.ravel() - test.targets.ravel())
        order = np.argsort(error)
        cases = [int(order[i]) for i in (0, len(order) // 2, -1)]
        page.figures(drawing("examples", cases, "The best, the median and the worst prediction of a test case."))
        return
    right, wrong = _choose(outputs, test.targets, dataset.classes)
    caption_right = "For every class, the correct case of median probability."
    caption_wrong = "For every class, the most confident mistake."
    made = [("examples-right", right, caption_right), ("examples-wrong", wrong, caption_wrong)]
    page.text("Test cases with their true class (left), and the predicted class with its probability (right).")
    page.figures(*(drawing(name, cases, caption) for name, cases, caption in made if cases))
    if source is not dataset:
        page.text(
            "The plots show the signals; the inputs of the model are computed from them (",
            isolated(", ".join(dataset.channel_names)),
            ").",
            kind="remark",
        )


def _signals(dataset: Dataset) -> Dataset:
    """Return the data set to draw: for an envelope, the data set of its signals."""
    if dataset.name.startswith("ecg-") and dataset.name.endswith("-envelope"):
        return load(dataset.name.removesuffix("-envelope"))
    return dataset


def _length(dataset: Dataset, case: int) -> int:
    return int(dataset.test.lengths[case])


def _verdict(dataset: Dataset, outputs: np.ndarray, case: int) -> dict[str, Any]:
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


def _choose(logits: np.ndarray, targets: np.ndarray, classes: int) -> tuple[list[int], list[int]]:
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
