"""The section of a report with the test cases on which the model does worst."""

import numpy as np

from ..training import Run
from ._examples import cases_drawing, log_odds, probabilities
from ._format import count, power
from ._page import Page

_ROWS, _DRAWN = 10, 6
# A mistake of this probability is a confident one.
_CONFIDENT = 0.9


def losses(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the cross-entropy of every case, -log of the probability of the true class."""
    return np.logaddexp(0, -log_odds(logits)[np.arange(len(targets)), targets])


def hard_cases(page: Page, run: Run, outputs: np.ndarray) -> None:
    """Write the cases of largest loss, and draw the first ones."""
    dataset, test = run.dataset, run.dataset.test
    if dataset.task == "regression":
        if test.targets.size == len(test):
            _largest_residuals(page, run, outputs)
        return
    p, loss = probabilities(outputs), losses(outputs, test.targets)
    named = outputs.argmax(1)
    wrong = named != test.targets
    order = np.argsort(-loss, kind="stable")
    order = order[wrong[order]][:_ROWS]
    page.heading("Hard cases")
    if not len(order):
        page.text(f"The model is right in all {count(len(test), 'test case')}. So there are no hard cases to show.")
        return
    sure = int((wrong & (p.max(1) >= _CONFIDENT)).sum())
    top = np.sort(loss)[::-1][: max(1, len(loss) // 10)]
    page.text(
        f"The model is wrong in {wrong.sum():,} of {count(len(test), 'test case')}. In {sure:,} of them it gives the "
        f"wrong class a probability of at least {_CONFIDENT:.0%}. The tenth of the cases with the largest loss makes "
        f"up {top.sum() / loss.sum():.0%} of the whole loss. A mistake of high confidence is worth a look: it may be a "
        "wrong label, a disturbed recording, or a kind of case that training lacks."
    )
    groups = [] if test.groups is None else ["group"]
    page.table(
        ["true class", "predicted class", "case", *groups, "p(true)", "p(predicted)", "loss"],
        [
            [
                dataset.class_names[int(test.targets[i])],
                dataset.class_names[int(named[i])],
                f"{i}",
                *([] if test.groups is None else [str(test.groups[i])]),
                _small(float(p[i, test.targets[i]])),
                _small(float(p[i, named[i]])),
                f"{loss[i]:.2f}",
            ]
            for i in order
        ],
        text=2,
    )
    page.text("Numbers of cases count from 0 in the order of the test cases. The loss is −ln p(true).", kind="remark")
    # Of every class one case: the hardest ones are often alike.
    hardest = np.flatnonzero(wrong)[np.argsort(-loss[wrong], kind="stable")]
    firsts = np.unique(test.targets[hardest], return_index=True)[1]
    cases = [int(i) for i in hardest[np.sort(firsts)][:_DRAWN]]
    page.figures(
        cases_drawing(
            "hard-cases",
            run,
            outputs,
            cases,
            caption="For every true class (left), the mistake of largest loss, with the predicted class and its "
            "probability (right). The worst comes first." + f" The first {_DRAWN} classes." * (len(firsts) > _DRAWN),
        )
    )


def _largest_residuals(page: Page, run: Run, outputs: np.ndarray) -> None:
    truth, found = run.dataset.test.targets.ravel(), np.asarray(outputs, float).ravel()
    order = np.argsort(-np.abs(found - truth), kind="stable")[:_ROWS]
    page.heading("Hard cases")
    page.text("The test cases with the largest residuals, in the unit of the targets. Cases count from 0.")
    page.table(
        ["case", "true", "predicted", "residual"],
        [[f"{i}", f"{truth[i]:.4g}", f"{found[i]:.4g}", f"{found[i] - truth[i]:+.4g}"] for i in order],
    )
    caption = "The cases with the largest residuals: true number (left), prediction (right)."
    page.figures(cases_drawing("hard-cases", run, outputs, [int(i) for i in order[:3]], caption=caption))


def _small(probability: float) -> str:
    return f"{probability:.3f}" if probability >= 0.0005 else power(probability)
