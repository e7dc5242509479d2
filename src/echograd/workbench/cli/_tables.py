"""Tables for the terminal, checks of options, and quoting for the shell."""

import os
import pathlib
import shlex
from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from echograd import ArgumentError
from echograd._internal import _table

TITLES = {
    "loss": "loss",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "f1": "macro F1",
    "mse": "MSE",
    "mae": "MAE",
    "r2": "R²",
}


def at_least(name: str, value: int, least: int = 1) -> None:
    """Raise unless an integer option is at least `least` and below 2³¹."""
    if not least <= value < 2**31:
        limit = f"at least {least}" if value < least else "below 2³¹"
        raise ArgumentError(f"{name}={value}; it must be {limit}.")


def check_new_file(file: pathlib.Path | None) -> None:
    """Raise if a file exists, or cannot be created."""
    if file is not None and file.exists():
        raise FileExistsError(f"{file} exists. Choose another file, or remove it.")
    if file is not None and not file.parent.is_dir():
        raise FileNotFoundError(f"{file.parent} is not a folder, so {file.name} cannot be created in it.")
    if file is not None and not os.access(file.parent, os.W_OK | os.X_OK):
        raise PermissionError(f"this user cannot write into {file.parent}. Choose a file in another folder.")


def for_shell(path: pathlib.Path) -> str:
    """Return a path quoted for the shell."""
    return shlex.quote(f"./{path}" if str(path).startswith("-") else str(path))


def plain_table(*columns: str, sides: str = "<") -> Table:
    """Return an empty table; `sides` aligns the columns as in `echograd._internal._table.Table`."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column, side in zip(columns, sides.ljust(len(columns), ">"), strict=True):
        table.add_column(escape(column), justify="left" if side == "<" else "right", overflow="fold")
    return table


def rich_table(texts: _table.Table) -> Table:
    """Return a table for the terminal that wraps long cells."""
    table = plain_table(*texts.head, sides=texts.sides)
    for row in texts.rows:
        table.add_row(*map(escape, row))  # square brackets in a path are not markup
    return table


def number(value: float | None) -> str:
    """Return a metric with three decimals."""
    return "-" if value is None else f"{value:.3f}" if abs(value) < 1000 else f"{value:.4g}"


def metrics_table(rows: dict[str, dict[str, Any]]) -> Table:
    """Return a table with one row of metrics for every name."""
    names = [name for name in TITLES if any(name in row for row in rows.values())]
    table = plain_table("", *(TITLES[name] for name in names))
    for title, row in rows.items():
        table.add_row(escape(title), *(number(row.get(name)) for name in names))
    return table


def confusion_table(confusion: Iterable[Sequence[int]], classes: Sequence[str]) -> Table:
    """Return a confusion matrix (rows: true class, columns: predicted class) with the recall of every class."""
    table = plain_table("true ↓ predicted →", *classes, "recall")
    for i, (name, row) in enumerate(zip(classes, confusion, strict=True)):
        cases = sum(row)
        counts = [f"[bold]{count}[/]" if i == j else str(count) for j, count in enumerate(row)]
        table.add_row(escape(name), *counts, f"{row[i] / cases:.0%}" if cases else "-")
    return table


def kind(model: str) -> str:
    """Return the name of a kind of model."""
    return "Hopfield network" if model == "hopfield" else f"{model} oscillators"


def console() -> Console:
    """Return a console; if the output is not a terminal, its lines are 160 characters wide."""
    out = Console(highlight=False, soft_wrap=False)
    return out if out.is_terminal else Console(highlight=False, width=160)
