"""What a report says, section by section."""

import pprint
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from echograd import GradientReport, plot
from echograd._internal._format import memory
from echograd.plot import CostRow

from ..data import Dataset, load
from ..training import Run
from ._format import count, duration, machine, power, score
from ._html import isolated, join, tag
from ._measure import Retrace
from ._page import Page, draw

# What an exact estimator may be off by, relative, in float64.
_TOLERANCE = 1e-9
_MOST_CLASSES = 6


def learned(page: Page, run: Run, gradients: GradientReport) -> None:
    """Say what was learned, and how well."""
    results, dataset, test = run.results, run.dataset, run.results["test"]
    model = (
        f"{count(run.config.network.blocks, 'block')} of {run.config.network.units} {run.config.model} oscillators, "
        f"{count(results['parameters'], 'parameter')}"
    )
    by = "echoes" if run.config.gradient == "echo" else "backpropagation"
    cases = join(count(len(dataset.test), "case"), _people(dataset))
    if dataset.task == "classification":
        level = results["majority"]["balanced_accuracy"]
        page.text(
            f"A Hamiltonian state-space model ({model}), trained by {by} in {duration(results['seconds'])}, tells "
            f"{count(dataset.classes, 'class', 'classes')} apart with a balanced accuracy of ",
            tag("strong", score(test["balanced_accuracy"])),
            " on ",
            cases,
            f". Always naming the most frequent class would give {score(level)}.",
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
            f". Always naming the mean of the training cases would give {level['mae']:.4g}.",
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
    """Tell classes, or true and predicted numbers, apart."""
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
        "On the test cases, class by class. Recall is the share of a class's cases that were recognised; "
        "precision is the "
        "share of the cases given this name that deserve it. Balanced accuracy is the mean of the recalls, "
        "so that a rare "
        "class counts as much as a frequent one."
    )
    page.table(["class", "cases", *([] if test.groups is None else ["people"]), "recall", "precision", "F1"], rows)
    if test.groups is not None:
        page.text("Recalls that rest on a handful of people say little about others.", kind="remark")
    page.figures(
        draw(
            "confusion",
            lambda axes: plot.confusion_matrix(axes, counts, dataset.class_names),
            caption="Of every class (rows), how many cases were taken for which class (columns). The "
            "diagonal is right.",
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
        f"The model was kept from epoch {results['best_epoch']} of {results['epochs']}, by its {_spaced(metric)} on "
        f"{count(len(run.dataset.splits['validation']), 'validation case')}. The test cases had no say."
    )
    if not records:  # training does without them
        page.text("The metrics of its epochs (metrics.jsonl) are gone, so there are no curves to draw.", kind="remark")
        return
    drawings = [
        draw(
            "loss",
            lambda axes: plot.learning_curve(axes, records, "loss", best_epoch=results["best_epoch"]),
            caption="Loss. In training it is the mean over an epoch, with dropout.",
            alt="Loss in training and validation over the epochs",
            height=2.7,
        )
    ]
    if metric != "loss":
        drawings.append(
            draw(
                metric,
                lambda axes: plot.learning_curve(axes, records, metric, **options),
                caption=f"{_spaced(metric).capitalize()}, by which the model was chosen.",
                alt=f"{_spaced(metric)} in training and validation over the epochs",
                height=2.7,
            )
        )
    page.figures(*drawings)


def examples(page: Page, run: Run, outputs: np.ndarray) -> None:
    """Show test cases with what the model made of them."""
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
    caption_right = "The most typical case of every class that was recognised: of median probability."
    caption_wrong = "The most confident mistake on every class."
    made = [("examples-right", right, caption_right), ("examples-wrong", wrong, caption_wrong)]
    page.text(
        "Test cases under what they are (left) and what the model took them for (right), with the "
        "probability that it gave."
    )
    page.figures(*(drawing(name, cases, caption) for name, cases, caption in made if cases))
    if source is not dataset:
        page.text(
            "Drawn are the signals; what the model sees is made from them (",
            isolated(", ".join(dataset.channel_names)),
            ").",
            kind="remark",
        )


def agreement(page: Page, report: GradientReport, cases: int, steps: int) -> None:
    """Compare echo and backprop, parameter by parameter."""
    worst = max(report.rows, key=lambda row: np.nan_to_num(row["relative_error"], nan=np.inf))
    page.heading("Echo against backpropagation")
    page.text(
        "An echo is a gradient measured by running the machine again. Here it is held against "
        "backpropagation through the "
        f"same steps, in float64, on {count(cases, 'test case')} of {steps:,} steps: for every array of "
        "parameters, the "
        "norm of the difference over the norm of the gradient. The largest is ",
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
            caption="Relative error of the echo. Hollow: less than a tenth of the rounding unit, or nothing.",
            alt="Relative error of the gradient by echo, for every parameter",
            height=0.7 + 0.155 * names,
        )
    )
    page.table(
        ["parameter", "relative error", "cosine", "norm ratio", "norm", "Taylor slope"],
        [
            [
                row["parameter"],
                f"{row['relative_error']:.1e}",
                f"{row['cosine']:.6f}",
                f"{row['norm_ratio']:.6f}",
                f"{row['reference_norm']:.2e}",
                "–" if row["taylor_slope"] is None else f"{row['taylor_slope']:.2f}",
            ]
            for row in report.rows
        ],
    )
    page.text(
        "The Taylor slope asks no other gradient: about 2 where the loss changes as the echo says, 1 where it does "
        "not, and in between only where the loss bends sharply. A dash: the loss is too close to linear in this "
        "parameter to tell.",
        kind="remark",
    )


def echo(page: Page, found: Retrace, run: Run) -> None:
    """Show an echo that retraces a trajectory."""
    rate = run.dataset.sample_rate
    t, unit = found.steps / (rate or 1.0), "seconds" if rate else "steps"
    part = found.steps <= 0.3 * found.steps[-1]
    page.heading("An echo")
    page.text(
        "The oscillators of the first block ran on a test case. Then every momentum was turned round, and the same "
        "oscillators ran on over the inputs in reverse. They come back along their own path, to within ",
        power(float(found.echo_error.max())),
        f" of its size after {count(found.steps[-1], 'step')} in {run.config.precision}. Pushed at every step "
        "by the slope "
        "of the loss, they leave it, and how fast, per strength of the push, is the gradient. It is pushed "
        "so hard here "
        "that it can be seen; in training the push is infinitesimal.",
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
            caption="Forward from left to right, the echoes from right to left.",
            alt="Position over time of the free run, its echo and a nudged echo",
            height=2.7,
        ),
        draw(
            "echo-distance",
            lambda axes: plot.departure(axes, t, found.echo_error, found.nudged_error, unit=unit),
            caption="Distance of all oscillators from the forward run, relative to its size.",
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
            caption="The same oscillator, position to the right and momentum upwards, in the first part of "
            "the run, which the nudged echo comes to last. Colours as before.",
            alt="Phase plane of the free run, its echo and a nudged echo",
            height=3.6,
        ),
    )


def costs(page: Page, oscillators: Sequence[CostRow], whole: Sequence[CostRow], cases: int, run: Run) -> None:
    """Compare what echo and backprop cost."""
    page.heading("What it costs")
    page.text(
        "Memory is what a compiled gradient needs besides its arguments and its result; time is the median "
        "of interleaved "
        f"repeats. Measured while this page was made, in {run.config.precision}, with JAX {jax.__version__} on "
        f"{jax.default_backend()}: {machine()}."
    )

    def paint(rows: Sequence[CostRow]) -> Any:
        return lambda axes: (plot.costs(axes[0], rows, "bytes"), plot.costs(axes[1], rows, "seconds"))

    units = run.config.network.units * (1 + run.config.network.complex)
    page.figures(
        draw(
            "costs-oscillators",
            paint(oscillators),
            caption=f"The {units} oscillators of one block by themselves, with a running cost: all the echo "
            "keeps is the "
            "final state.",
            alt="Memory and time of a gradient through the oscillators over the number of steps",
            height=4.6,
            rows=2,
        ),
        draw(
            "costs-model",
            paint(whole),
            caption=f"The whole model on {count(cases, 'case')}: what stands between the oscillators keeps a sequence "
            "either way.",
            alt="Memory and time of a gradient of the whole model over the number of steps",
            height=4.6,
            rows=2,
        ),
    )
    table = []
    for name, rows in (("oscillators", oscillators), ("whole model", whole)):
        for n in sorted({row["steps"] for row in rows}):
            a, b = ({row["gradient"]: row for row in rows if row["steps"] == n}[key] for key in ("echo", "backprop"))
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
    head = ["gradient of", "steps", "memory, echo", "backprop", "time, echo", "backprop"]
    page.table(head, table)


def repeat(page: Page, run: Run, command: str | None) -> None:
    """Say how to get these numbers again."""
    page.heading("How to repeat it")
    config = pprint.pformat(run.config.to_dict(), sort_dicts=False, width=88)
    if command is not None:
        page.text("One command does all of it:")
        page.code(command)
    page.text("In Python, the training alone:")
    page.code(
        f"from echograd.workbench.training import Config, fit\n\nconfig = {config}\n"
        'fit(Config.from_dict(config), out="again")'
    )
    page.text(
        "The same machine and versions give the same numbers, bit for bit; others may differ in the last digits, which "
        "training amplifies. This run had " + ", ".join(f"{key} {value}" for key, value in run.versions.items()) + "."
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
    """Return whom the test cases are from, if that is known."""
    groups = dataset.test.groups
    if groups is None:
        return " that it has not seen"
    seen = [split.groups for name, split in dataset.splits.items() if name != "test" and split.groups is not None]
    new = not np.isin(groups, np.concatenate(seen)).any()
    people = count(len(np.unique(groups)), "person", "people")
    return f" of {people}" + (", none of whom it has seen before" if new else "")


def _spaced(metric: str) -> str:
    return metric.replace("_", " ")


def _signals(dataset: Dataset) -> Dataset:
    """Return the set to draw: where the model sees an envelope, the signals that it is made from."""
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
    """Choose one right and one wrong case of every class, of the first classes if there are many."""
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
