"""Sections of a report about the model and its scores: summary, scores of the classes, learning curves."""

import numpy as np

from echograd import GradientReport, plot

from ..data import Dataset
from ..training import Run
from ._curves import rates, regression
from ._format import count, duration, power, score
from ._html import join, tag
from ._page import Page, draw
from ._rankings import rankings


def learned_by(run: Run) -> str:
    """Return how the gradients of a run were found, in words."""
    if run.config.model == "hopfield":
        return "equilibrium propagation" if run.config.gradient == "echo" else "implicit differentiation"
    if run.config.gradient == "backprop":
        return "backpropagation"
    return "reversed errors" if run.config.model == "damped" else "echoes"


def learned(page: Page, run: Run, gradients: GradientReport | None) -> None:
    """Write the summary: model, training and the main scores."""
    results, dataset, test = run.results, run.dataset, run.results["test"]
    model = _model(run, count(results["parameters"], "parameter"))
    by = learned_by(run)
    cases = join(count(len(dataset.test), "case"), _people(dataset))
    if dataset.task == "classification":
        level = results["majority"]["balanced_accuracy"]
        page.text(
            f"{model}, trained by {by} in {duration(results['seconds'])}, "
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
            f"{model}, trained by {by} in {duration(results['seconds'])}, predicts "
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
    error = [] if gradients is None else [("largest gradient error", power(gradients.worst))]
    page.tiles([*tiles, ("epochs", f"{results['epochs']}"), *error])


def _model(run: Run, parameters: str) -> str:
    """Return the kind and the size of the model, in words."""
    network = run.config.network
    if run.config.model == "hopfield":
        layers = count(network.blocks, "hidden layer")
        return f"A Hopfield network ({layers} of {count(network.units, 'unit')}, {parameters})"
    size = f"{count(network.blocks, 'block')} of {network.units} {run.config.model} oscillators"
    return f"A Hamiltonian state-space model ({size}, {parameters})"


def scores(page: Page, run: Run, outputs: np.ndarray) -> None:
    """Write the scores of every class, or plot predictions of a regression."""
    dataset, test = run.dataset, run.dataset.test
    page.heading("How well")
    if dataset.task == "regression":
        regression(page, run, outputs)
        return
    found = rankings(outputs, test.targets)
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
                *((score(rank.roc_area), score(rank.average_precision)) if (rank := found[i]) else ("–", "–")),
            ]
        )
    page.text(
        "Scores on the test cases. Recall is the share of the cases of a class that were recognised. Precision is the "
        "share of the cases predicted to be of a class that are of it. Balanced accuracy is the mean of the recalls: a "
        "rare class counts as much as a frequent one. The areas do not depend on a threshold; the curves below explain "
        "them."
    )
    page.table(
        [
            "class",
            "cases",
            *([] if test.groups is None else ["people"]),
            "recall",
            "precision",
            "F1",
            "ROC area",
            "PR area",
        ],
        rows,
    )
    if test.groups is not None:
        page.text("The recall of a class with few people may not generalise to other people.", kind="remark")
    page.figures(
        draw(
            "confusion",
            lambda axes, _: plot.confusion_matrix(axes, counts, dataset.class_names),
            caption="Numbers of cases by true class (rows) and predicted class (columns). The diagonal is correct.",
            alt="Confusion matrix of the test cases",
            height=min(3.8, 1.4 + 0.62 * dataset.classes),
        )
    )
    rates(page, dataset, found)


def history(page: Page, run: Run) -> None:
    """Draw the learning curves."""
    results, records = run.results, run.history()
    metric = results["monitor"]
    constant, label = ("majority", "majority class") if "majority" in results else ("mean", "mean of the targets")
    options = {"best_epoch": results["best_epoch"], "baseline": results[constant].get(metric), "baseline_label": label}
    page.heading("How it was learned")
    validation = run.dataset.splits.get("validation")
    if validation is None:
        page.text(f"The model is that of the last epoch, {results['epochs']}. All training cases were trained on.")
    else:
        page.text(
            f"The model is that of epoch {results['best_epoch']} of {results['epochs']}. It was chosen by its "
            f"{_spaced(metric)} on {count(len(validation), 'validation case')}, without the test cases."
        )
    if not records:  # a run may lack its metrics
        page.text("The metrics of the epochs (metrics.jsonl) are missing, so there are no curves.", kind="remark")
        return
    drawings = [
        draw(
            "loss",
            lambda axes, _: plot.learning_curve(axes, records, "loss", best_epoch=results["best_epoch"]),
            caption="Loss. The training loss is the mean over an epoch, with dropout.",
            alt="Loss in training and validation over the epochs",
            height=2.7,
        )
    ]
    if metric != "loss":
        drawings.append(
            draw(
                metric,
                lambda axes, _: plot.learning_curve(axes, records, metric, **options),
                caption=f"{_spaced(metric).capitalize()}" + (", which selects the model." if validation else "."),
                alt=f"{_spaced(metric)} in training and validation over the epochs",
                height=2.7,
            )
        )
    page.figures(*drawings)


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
