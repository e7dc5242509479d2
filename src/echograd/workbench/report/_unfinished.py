"""The page of a run whose training is not finished."""

from typing import Any

from echograd import plot

from ..training import Run
from ._format import count, duration, score
from ._html import isolated
from ._page import Page, draw

_SCORES = ("accuracy", "balanced_accuracy", "f1", "mse", "mae", "r2")


def unfinished(page: Page, run: Run, records: list[dict[str, Any]]) -> None:
    """Write how far training is, with its learning curves and the last validation scores."""
    last = records[-1]
    page.text(
        f"Training is not finished: {count(last['epoch'], 'epoch')} of {run.config.epochs} are done, in "
        f"{duration(last['seconds'])}. The test cases are used at the end only, so there "
        "are no scores on them yet.",
        kind="lede",
    )
    page.text("The command “echograd train” with --resume continues the run in ", isolated(str(run.folder)), ".")
    page.heading("How it learns")
    side = "validation" if last["validation"] else "train"
    known = [name for name in ("loss", *_SCORES) if name in last[side]]
    page.table(
        ["validation" if last["validation"] else "training", *(name.replace("_", " ") for name in known)],
        [[f"epoch {row['epoch']}", *(score(row[side][name]) for name in known)] for row in records[-5:]],
    )
    page.figures(
        *(
            draw(
                name,
                lambda axes, _, name=name: plot.learning_curve(axes, records, name),
                caption=f"{name.replace('_', ' ').capitalize()} over the epochs so far.",
                alt=f"{name.replace('_', ' ').capitalize()} in training and validation over the epochs",
                height=2.7,
            )
            for name in known[:3]
        )
    )
