"""Refusals: what cannot be drawn is told in one sentence, before a figure is half made."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from .._internal._errors import ArgumentError, ArgumentTypeError


def check_axes(who: str, axes: Any) -> None:
    """Raise if the axes are none."""
    if not isinstance(axes, Axes):
        many = " Pass one of them." if isinstance(axes, np.ndarray) else ""
        raise ArgumentTypeError(
            f"{who}: axes is a {type(axes).__name__}, and must be Axes, as plot.figure makes them.{many}"
        )


def numbers(who: str, what: str, values: Any, shape: tuple[int | None, ...] | None = None) -> np.ndarray:
    """Return real numbers as float64, or raise if they are none, or not of the shape; None stands for any length."""
    try:
        found = np.asarray(values)
        if found.dtype.kind not in "biuf" and found.dtype.name != "bfloat16":
            raise TypeError
    except (TypeError, ValueError):  # a ragged list, or an object that is no array
        raise ArgumentTypeError(f"{who}: {what} must be real numbers, and got {_shown(values)}.") from None
    if shape is not None and (
        found.ndim != len(shape) or any(n not in (None, m) for n, m in zip(shape, found.shape, strict=True))
    ):
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        raise ArgumentError(f"{who}: {what} has shape {found.shape}, and ({wanted}) is needed.")
    if not found.size:
        raise ArgumentError(f"{who}: {what} has shape {found.shape}: it is empty, so there is nothing to draw.")
    return found.astype(float)


def real(who: str, what: str, value: Any) -> float:
    """Return one finite real number, or raise."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not np.isfinite(value):
        raise ArgumentTypeError(f"{who}: {what}={_shown(value)} is not a finite number.")
    return float(value)


def rows_of(who: str, given: Any, keys: Iterable[str], source: str) -> list[Any]:
    """Return rows with all these entries, of a list or of an object that has `rows`, or raise.

    Args:
        who: the function that draws.
        given: rows, which are mappings or objects with attributes, or a report of them.
        keys: what every row must have.
        source: what makes such a report, for the error.
    """
    rows = getattr(given, "rows", given)
    if isinstance(rows, str | bytes | Mapping) or not isinstance(rows, Sequence):
        raise ArgumentTypeError(f"{who}: got {_shown(given)}, and needs {source}, or its rows.")
    if not rows:
        raise ArgumentError(f"{who}: there are no rows to draw. Pass {source}, or its rows.")
    for i, row in enumerate(rows):
        has = row.__contains__ if isinstance(row, Mapping) else lambda key, row=row: hasattr(row, key)
        lacking = [key for key in keys if not has(key)]
        if lacking:
            raise ArgumentError(f"{who}: row {i} has no {lacking[0]!r}. Pass {source}, or its rows.")
    return list(rows)


def _shown(value: Any) -> str:
    text = repr(value).replace("\n", " ")
    return text if len(text) <= 60 else f"a {type(value).__name__}"
