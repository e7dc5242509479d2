"""The sections of a report, except the examples."""

import pprint
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from echograd import GradientReport, plot
from echograd._internal._format import memory
from echograd.plot import CostRow

from ..data import Dataset
from ..training import Run
from ._format import count, duration, machine, power, score
from ._html import isolated, join, tag
from ._measure import Retrace
from ._page import Page, draw

# Largest relative error of an exact gradient in float64.
_TOLERANCE = 1e-9


def learned_by(run: Run) -> str:
    """Return how the gradients of a run were found, in words."""
    if run.config.gradient == "backprop":
        return "backpropagation"
    return "reversed errors" if run.config.model == "damped" else "echoes"


def learned(page: Page, run: Run, gradients: GradientReport) -> None:
    """Write the summary: model, training and the main scores."""
    results, dataset, test = run.results, run.dataset, run.results["test"]
    model = (
        f"{count(run.config.network.blocks, 'block')} of {run.config.network.units} {run.config.model} oscillators, "
        f"{count(results['parameters'], 'parameter')}"
    )
    by = learned_by(run)
    cases = join(count(len(dataset.test), "case"), _people(dataset))
    if dataset.task == "classification":
        level = results["majority"]["balanced_accuracy"]
        page.text(
            f"A Hamiltonian state-space model ({model}), trained by {by} in {duration(results['seconds'])}, "
            f"distinguishes {count(dataset.classes, 'class', 'classes')} with a balanced accuracy of ",
            tag("strong", score(test["balanced_accuracy"])),
            " on ",
            cases,
            f". Always predicting the most frequent class gives {score(level)}.",
            kind="lede",
        )
        tiles = [
            ("balanced accuracy", score(test["balanced_accuracy"])),
            ("of the majority class", score(level)),
            ("accuracy", score(test["accuracy"])),
            ("macro F1", score(test["f1"])),
        ]
    else:
        level = results["mean"]
        page.text(
            f"A Hamiltonian state-space model ({model}), trained by {by} in {duration(results['seconds'])}, predicts "
            "numbers with a mean absolute error of ",
            tag("strong", f"{test['mae']:.4g}"),
            " on ",
            cases,
            f". Always predicting the mean of the training cases gives {level['mae']:.4g}.",
            kind="lede",
        )
        tiles = [
            ("mean absolute error", f"{test['mae']:.4g}"),
            ("of the training mean", f"{level['mae']:.4g}"),
            ("root mean square error", f"{test['mse'] ** 0.5:.4g}"),
            ("R²", score(test["r2"])),
        ]
    page.tiles([*tiles, ("epochs", f"{results['epochs']}"), ("largest gradient error", power(gradients.worst))])


def scores(page: Page, run: Run, outputs: np.ndarray) -> None:
    """Write the scores of every class, or plot predictions of a regression."""
    dataset, test = run.dataset, run.dataset.test
    page.heading("How well")
    if dataset.task == "regression":
        page.figures(
            draw(
                "predictions",
                lambda axes: plot.predicted_against_true(axes, test.targets, outputs),
                caption="Predicted against true numbers of the test cases.",
                alt="Scatter of predicted against true numbers",
                height=4.0,
            )
        )
        return
    counts = np.asarray(run.results["test"]["confusion"], float)
    rows = []
    for i, label in enumerate(dataset.class_names):
        n, named, right = counts[i].sum(), counts[:, i].sum(), counts[i, i]
        people = [] if test.groups is None else [f"{len(np.unique(test.groups[test.targets == i]))}"]
        rows.append(
            [
                label,
                f"{n:.0f}",
                *people,
                score(right / n if n else None),
                score(right / named if named else None),
                score(2 * right / (n + named) if n + named else None),
            ]
        )
    page.text(
        "Scores on the test cases. Recall is the share of the cases of a class that were recognised. Precision is the "
        "share of the cases predicted to be of a class that are of it. Balanced accuracy is the mean of the recalls: a "
        "rare class counts as much as a frequent one."
    )
    page.table(["class", "cases", *([] if test.groups is None else ["people"]), "recall", "precision", "F1"], rows)
    if test.groups is not None:
        page.text("The recall of a class with few people may not generalise to other people.", kind="remark")
    page.figures(
        draw(
            "confusion",
            lambda axes: plot.confusion_matrix(axes, counts, dataset.class_names),
            caption="Numbers of cases by true class (rows) and predicted class (columns). The diagonal is correct.",
            alt="Confusion matrix of the test cases",
            height=min(3.8, 1.4 + 0.62 * dataset.classes),
        )
    )


def history(page: Page, run: Run) -> None:
    """Draw the learning curves."""
    results, records = run.results, run.history()
    metric = results["monitor"]
    constant, label = ("majority", "majority class") if "majority" in results else ("mean", "mean of the targets")
    options = {"best_epoch": results["best_epoch"], "baseline": results[constant].get(metric), "baseline_label": label}
    page.heading("How it was learned")
    page.text(
        f"The model is that of epoch {results['best_epoch']} of {results['epochs']}. It was chosen by its "
        f"{_spaced(metric)} on {count(len(run.dataset.splits['validation']), 'validation case')}, without the test "
        "cases."
    )
    if not records:  # a run may lack its metrics
        page.text("The metrics of the epochs (metrics.jsonl) are missing, so there are no curves.", kind="remark")
        return
    drawings = [
        draw(
            "loss",
            lambda axes: plot.learning_curve(axes, records, "loss", best_epoch=results["best_epoch"]),
            caption="Loss. The training loss is the mean over an epoch, with dropout.",
            alt="Loss in training and validation over the epochs",
            height=2.7,
        )
    ]
    if metric != "loss":
        drawings.append(
            draw(
                metric,
                lambda axes: plot.learning_curve(axes, records, metric, **options),
                caption=f"{_spaced(metric).capitalize()}, which selects the model.",
                alt=f"{_spaced(metric)} in training and validation over the epochs",
                height=2.7,
            )
        )
    page.figures(*drawings)


def agreement(page: Page, report: GradientReport, rule: str, cases: int, steps: int) -> None:
    """Compare the gradient of the model with backprop, parameter by parameter."""
    worst = max(report.rows, key=lambda row: np.nan_to_num(row["relative_error"], nan=np.inf))
    reciprocal = rule == "reciprocal"
    what = "Reversed errors" if reciprocal else "Echo"
    page.heading(f"{what} against backpropagation")
    page.text(
        "Damped oscillators cannot be run back. But the same lossy machine, started at rest and driven by the reversed "
        "errors, measures the gradient. "
        if reciprocal
        else "An echo measures a gradient by running the machine again. ",
        "Here it is compared with backpropagation through "
        f"the same steps, in float64, on {count(cases, 'test case')} of {steps:,} steps. The relative error of a "
        "parameter array is the norm of the difference over the norm of the gradient. The largest error is ",
        tag("strong", power(worst["relative_error"])),
        ", for ",
        isolated(worst["parameter"]),
        ". ",
        "That is rounding."
        if report.ok(_TOLERANCE)
        else join("That is more than the ", power(_TOLERANCE), " that an exact gradient may have."),
    )
    names = len({row["parameter"] for row in report.rows})
    page.figures(
        draw(
            "gradients",
            lambda axes: plot.gradient_agreement(axes, report.rows, tolerance=_TOLERANCE),
            caption="Relative error of the gradient. Hollow points: less than a tenth of the rounding unit, or 0.",
            alt=f"Relative error of the gradient by {what.lower()}, for every parameter",
            height=0.7 + 0.155 * names,
        )
    )
    table = report.cells()  # without its first column, the name of the candidate
    page.table(table.head[1:], [row[1:] for row in table.rows])
    page.text(
        "The Taylor slope needs no second gradient. It is about 2 if the gradient is right, and 1 if it is wrong. "
        "Values in between occur only if the loss is strongly curved. A dash means that the loss is too close to "
        "linear in this parameter for the test.",
        kind="remark",
    )


def echo(page: Page, found: Retrace, run: Run) -> None:
    """Plot an echo that retraces a trajectory."""
    rate = run.dataset.sample_rate
    t, unit = found.steps / (rate or 1.0), "seconds" if rate else "steps"
    part = found.steps <= 0.3 * found.steps[-1]
    page.heading("An echo")
    page.text(
        "The oscillators of the first block ran on a test case. Then all momenta were flipped, and the same "
        "oscillators ran over the inputs in reverse order. They retrace their path: the relative distance from it is "
        "at most ",
        power(float(found.echo_error.max())),
        f" over {count(found.steps[-1], 'step')} in {run.config.precision}. A nudge by the gradient of the loss at "
        "every step drives them away from the path. The displacement per strength of the nudge gives the gradient. The "
        "nudge shown here is large enough to be visible; in training it is infinitesimal.",
    )
    page.figures(
        draw(
            "echo-time",
            lambda axes: plot.echo_in_time(
                axes,
                t,
                found.forward[:, 0],
                found.echo[:, 0],
                found.nudged[:, 0],
                unit=unit,
                quantity=f"Position of oscillator {found.unit}",
            ),
            caption="The free run goes from left to right, the echoes from right to left.",
            alt="Position over time of the free run, its echo and a nudged echo",
            height=2.7,
        ),
        draw(
            "echo-distance",
            lambda axes: plot.departure(axes, t, found.echo_error, found.nudged_error, unit=unit),
            caption="Distance of all oscillators from the forward run, relative to its norm.",
            alt="Distance from the forward run of the echo and of the nudged echo, over time",
            height=2.7,
        ),
        draw(
            "echo-path",
            lambda axes: plot.echo_path(
                axes,
                found.forward[part],
                found.echo[part][::-1],
                found.nudged[part][::-1],
                equal=False,
                names=("position", "momentum"),
            ),
            caption="The same oscillator in phase space, in the first part of the run, which the nudged echo reaches "
            "last. Colours as before.",
            alt="Phase plane of the free run, its echo and a nudged echo",
            height=3.6,
        ),
    )


def costs(
    page: Page, oscillators: Sequence[CostRow], whole: Sequence[CostRow], rule: str, cases: int, run: Run
) -> None:
    """Compare memory and time of the gradient of the model and of backprop."""
    page.heading("What it costs")
    page.text(
        "Memory is what a compiled gradient allocates besides its arguments and its result. Time is the median of "
        f"repeats in turns. Measured for this page in {run.config.precision}, with JAX {jax.__version__} on "
        f"{jax.default_backend()}: {machine()}."
    )

    def paint(rows: Sequence[CostRow]) -> Any:
        return lambda axes: (plot.costs(axes[0], rows, "bytes"), plot.costs(axes[1], rows, "seconds"))

    units = run.config.network.units * (1 + run.config.network.complex)
    drawings = [
        draw(
            "costs-model",
            paint(whole),
            caption=f"The whole model on {count(cases, 'case')}. The layers between the oscillators store sequences "
            "with both methods.",
            alt="Memory and time of a gradient of the whole model over the number of steps",
            height=4.6,
            rows=2,
        )
    ]
    if oscillators:
        alone = draw(
            "costs-oscillators",
            paint(oscillators),
            caption=f"The {units} oscillators of one block alone, with a running cost. The echo stores the final state "
            "only.",
            alt="Memory and time of a gradient through the oscillators over the number of steps",
            height=4.6,
            rows=2,
        )
        drawings.insert(0, alone)
    page.figures(*drawings)
    table = []
    for name, rows in (("oscillators", oscillators), ("whole model", whole)):
        for n in sorted({row["steps"] for row in rows}):
            a, b = ({row["gradient"]: row for row in rows if row["steps"] == n}[key] for key in (rule, "backprop"))
            table.append(
                [
                    name,
                    f"{n:,}",
                    memory(a["bytes"]),
                    memory(b["bytes"]),
                    duration(a["seconds"]),
                    duration(b["seconds"]),
                ]
            )
    head = ["gradient of", "steps", f"memory, {rule}", "backprop", f"time, {rule}", "backprop"]
    page.table(head, table)


def repeat(page: Page, run: Run, command: str | None) -> None:
    """Write how to reproduce the numbers."""
    page.heading("How to repeat it")
    config = pprint.pformat(run.config.to_dict(), sort_dicts=False, width=88)
    if command is not None:
        page.text("This command repeats everything:")
        page.code(command)
    page.text("In Python, for the training alone:")
    page.code(
        f"from echograd.workbench.training import Config, fit\n\nconfig = {config}\n"
        'fit(Config.from_dict(config), out="again")'
    )
    page.text(
        "The same machine and versions give the same numbers, bit for bit. Others may differ in the last digits, and "
        "training amplifies the difference. This run used "
        + ", ".join(f"{key} {value}" for key, value in run.versions.items())
        + "."
    )
    dataset = run.dataset
    sizes = ", ".join(f"{len(split):,} {name}" for name, split in dataset.splits.items())
    page.text(
        "Data: ",
        isolated(dataset.name),
        f", {sizes} cases. ",
        isolated(dataset.source),
        " Licence: ",
        isolated(dataset.licence),
        kind="remark",
    )
    first = dataset.description.split("\n- ")[0].strip()
    page.text(isolated(first), kind="remark")


def _people(dataset: Dataset) -> str:
    """Return the number of people of the test cases, if it is known."""
    groups = dataset.test.groups
    if groups is None:
        return " that it has not seen"
    seen = [split.groups for name, split in dataset.splits.items() if name != "test" and split.groups is not None]
    new = not np.isin(groups, np.concatenate(seen)).any()
    people = count(len(np.unique(groups)), "person", "people")
    return f" of {people}" + (" that it has not seen" if new else "")


def _spaced(metric: str) -> str:
    return metric.replace("_", " ")
