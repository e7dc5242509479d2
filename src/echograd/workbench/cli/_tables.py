"""Tables of results, for people, and what they typed and may type."""

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
    """Raise if an option is smaller than it can be, or larger than any machine could hold."""
    if not least <= value < 2**31:
        what = f"at least {least}" if value < least else "below 2³¹"
        raise ArgumentError(f"{name}={value}: a whole number {what} is needed.")


def to_be_written(file: pathlib.Path | None) -> None:
    """Raise if a file to write is there already, or cannot come to be where it is wanted."""
    if file is not None and file.exists():
        raise FileExistsError(f"{file} is there already. Name another file, or remove it.")
    if file is not None and not file.parent.is_dir():
        raise FileNotFoundError(f"{file.parent} is no folder, so {file.name} cannot go into it.")
    if file is not None and not os.access(file.parent, os.W_OK | os.X_OK):
        raise PermissionError(f"{file.parent} may not be written by this user. Name a file in another folder.")


def for_shell(path: pathlib.Path) -> str:
    """Return a path as it is typed, whatever is in it."""
    return shlex.quote(f"./{path}" if str(path).startswith("-") else str(path))


def plain_table(*columns: str, sides: str = "<") -> Table:
    """Return an empty table; `sides` tells as in `echograd._table.Table` where the columns are flush."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column, side in zip(columns, sides.ljust(len(columns), ">"), strict=True):
        table.add_column(escape(column), justify="left" if side == "<" else "right", overflow="fold")
    return table


def rich_table(texts: _table.Table) -> Table:
    """Return a table for the terminal, which folds what is too wide for it."""
    table = plain_table(*texts.head, sides=texts.sides)
    for row in texts.rows:
        table.add_row(*map(escape, row))  # square brackets in a path are not rich's markup
    return table


def number(value: float | None) -> str:
    """Return three digits of a metric."""
    return "-" if value is None else f"{value:.3f}" if abs(value) < 1000 else f"{value:.4g}"


def metrics_table(rows: dict[str, dict[str, Any]]) -> Table:
    """Return a table with one row of metrics for every name."""
    names = [name for name in TITLES if any(name in row for row in rows.values())]
    table = plain_table("", *(TITLES[name] for name in names))
    for title, row in rows.items():
        table.add_row(escape(title), *(number(row.get(name)) for name in names))
    return table


def confusion_table(confusion: Iterable[Sequence[int]], classes: Sequence[str]) -> Table:
    """Return a confusion matrix with recalls."""
    table = plain_table("is, and is taken for →", *classes, "recall")
    for i, (name, row) in enumerate(zip(classes, confusion, strict=True)):
        cases = sum(row)
        counts = [f"[bold]{count}[/]" if i == j else str(count) for j, count in enumerate(row)]
        table.add_row(escape(name), *counts, f"{row[i] / cases:.0%}" if cases else "-")
    return table


def kind(model: str) -> str:
    """Return what a model of this kind is made of, in words."""
    return "Hopfield network" if model == "hopfield" else f"{model} oscillators"


def console() -> Console:
    """Return a console that does not break lines where the output goes into a file."""
    out = Console(highlight=False, soft_wrap=False)
    return out if out.is_terminal else Console(highlight=False, width=160)
