"""Checks of the arguments of figures. Each returns the value to draw, or raises before anything is drawn."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from .._internal import _checks
from .._internal._errors import ArgumentError, ArgumentTypeError


def check_axes(owner: str, axes: Any) -> None:
    """Raise unless the argument is one matplotlib `Axes`."""
    if not isinstance(axes, Axes):
        many = " Pass one of them." if isinstance(axes, np.ndarray) else ""
        raise ArgumentTypeError(f"{owner}: axes is a {type(axes).__name__}, not Axes as plot.figure makes them.{many}")


def numbers(
    owner: str, name: str, values: Any, shape: tuple[int | None, ...] | None = None, *, finite: bool = False
) -> np.ndarray:
    """Return real numbers as a float64 array. `None` in `shape` is any length; `finite` refuses NaN and infinities."""
    try:
        found = np.asarray(values)
        if found.dtype.kind not in "biuf" and found.dtype.name != "bfloat16":
            raise TypeError
    except (TypeError, ValueError):  # a ragged list, or an object that is not an array
        raise ArgumentTypeError(f"{owner}: {name} must be real numbers, not {_checks.shown(values)}.") from None
    if shape is not None and (
        found.ndim != len(shape) or any(n not in (None, m) for n, m in zip(shape, found.shape, strict=True))
    ):
        needed = ", ".join("any" if n is None else str(n) for n in shape)
        raise ArgumentError(f"{owner}: {name} has shape {found.shape}; it must be ({needed}).")
    if not found.size:
        raise ArgumentError(f"{owner}: {name} has shape {found.shape}: it is empty, so there is nothing to draw.")
    found = found.astype(float)
    if finite and not np.isfinite(found).all():
        raise ArgumentError(f"{owner}: {name} contains NaN or infinite numbers, which cannot be drawn.")
    return found


def rows_of(owner: str, given: Any, keys: Iterable[str], source: str) -> list[Any]:
    """Return the rows of a report or a list, mappings or objects; raise if one lacks a key. `source` makes a report."""
    rows = getattr(given, "rows", given)
    if isinstance(rows, str | bytes | Mapping) or not isinstance(rows, Sequence):
        raise ArgumentTypeError(f"{owner}: got {_checks.shown(given)}, but needs {source}, or its rows.")
    if not rows:
        raise ArgumentError(f"{owner}: there are no rows to draw. Pass {source}, or its rows.")
    for i, row in enumerate(rows):
        for key in keys:
            if not (key in row if isinstance(row, Mapping) else hasattr(row, key)):
                raise ArgumentError(f"{owner}: row {i} has no {key!r}. Pass {source}, or its rows.")
    return list(rows)
