"""The page `docs/learning.md`, from the stored results."""

import json
import pathlib
from typing import Any

import numpy as np

from . import _published

HEAD = """# Accuracy of trained models

This page is written by `python -m benchmarks.learning.table --page-only` from the files in
`benchmarks/learning/results/`. `python -m benchmarks.learning.table SET` trains a row again.

Every cell is a model that `echograd train SET` gives: the settings are those of `recipe(dataset)`, the same for all
sets but for what the number and the length of the training cases decide. Width and smoothing were chosen by
cross-validation within training cases (`benchmarks/learning/search.jsonl` has every trial; most differences are within
the noise of so few cases). Damping, batch norm, pooling, patches and windows came from earlier trials in which test
accuracies of HouseTwenty, PigCVP and Lightning2 were seen, so these three rows are slightly optimistic. In every cell
the test cases were scored once for each seed, at the end. A figure is mean ± standard deviation over the seeds; the
ensemble is the mean of the probabilities of the models of the column "damped".

- **damped**: oscillators with trainable damping; their gradient is `Reciprocal()`.
- **undamped, echo**: the same model without damping; the gradient is an echo.
- **undamped, backprop**: the same model and the same seeds; the gradient is that of backpropagation.
- **nonlinear, echo**: oscillators with a saturating spring.
"""


def _percent(values: list[float]) -> str:
    spread = f" ± {100 * np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{100 * np.mean(values):.1f}{spread}"


def _cell(record: dict[str, Any], column: str) -> str:
    found = record["columns"].get(column)
    return "–" if found is None else _percent(found["test"]["accuracy"])


def _verdict(record: dict[str, Any], goal: float) -> str:
    found = record["columns"].get("damped")
    if found is None:
        return ""
    best = 100 * max(found["ensemble"]["accuracy"], float(np.mean(found["test"]["accuracy"])))
    return "reached" if best >= goal else f"missed by {goal - best:.1f}"


def write(results: pathlib.Path, page: pathlib.Path) -> None:
    """Write the page."""
    records = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.glob("*.json"))}
    records = {name: record for name, record in records.items() if "columns" in record}
    lines = [HEAD, "## Default splits of the UCR archive, accuracy in %\n"]
    heads = ["set", "cases × steps, classes", "damped", "ensemble", "undamped, echo", "undamped, backprop"]
    heads += ["nonlinear, echo", " / ".join(_published.NAMES), "goal"]
    lines += [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for name, (*published, goal) in _published.UCR.items():
        record = records.get(name)
        if record is None:
            row = [name, "not trained yet", *["–"] * 5]
        else:
            damped = record["columns"].get("damped")
            ensemble = "–" if damped is None else f"{100 * damped['ensemble']['accuracy']:.1f}"
            size = f"{record['cases']['train']} × {record['length']}, {record['classes']}"
            cells = [_cell(record, column) for column in ("damped", "echo", "backprop", "nonlinear")]
            row = [name, size, cells[0], ensemble, *cells[1:]]
        verdict = "" if record is None else _verdict(record, goal)
        row += [" / ".join(map(str, published)), f"{goal:g}{verdict and ': ' + verdict}"]
        lines.append(f"| {' | '.join(row)} |")
    lines += ["", _published.SOURCE, "", *_pairs(records), *_effort(records)]
    page.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


def _pairs(records: dict[str, Any]) -> list[str]:
    """Return the section on the difference between echo and backprop, and between damped and undamped."""
    lines = ["## Echo against backprop, seed by seed\n"]
    lines.append("| set | echo − backprop, points | spread over seeds | damped − undamped echo, points |")
    lines.append("|---|---|---|---|")
    for name, record in records.items():
        columns = record["columns"]
        if not {"echo", "backprop"} <= columns.keys():
            continue
        echo, exact = (100 * np.array(columns[c]["test"]["accuracy"]) for c in ("echo", "backprop"))
        gain = "–"
        if "damped" in columns:
            gain = f"{100 * np.mean(columns['damped']['test']['accuracy']) - echo.mean():+.1f}"
        apart = echo - exact
        lines.append(f"| {name} | {apart.mean():+.1f} ± {apart.std(ddof=1):.1f} | {exact.std(ddof=1):.1f} | {gain} |")
    lines.append(
        "\nBoth gradients are equal to rounding. Training amplifies rounding errors, so models of equal seeds differ "
        "by about as much as models of different seeds.\n"
    )
    return lines


def _effort(records: dict[str, Any]) -> list[str]:
    """Return the section on parameters and seconds."""
    lines = ["## Sizes and times\n", "| set | column | parameters | seconds a run | seeds | machine, jax |"]
    lines.append("|---|---|---|---|---|---|")
    for name, record in records.items():
        for column, found in record["columns"].items():
            row = [name, column, f"{found['parameters']:,}", f"{np.median(found['seconds']):.0f}"]
            row += [str(len(found["seeds"])), f"{found['machine']}, {found['jax']}"]
            lines.append(f"| {' | '.join(row)} |")
    lines.append("\nTimes were taken while other programs ran, so they are upper bounds.\n")
    return lines
