"""Checks of arguments: each says what was passed, what was expected, and what to do."""

import math
import numbers
import operator
import os
import pathlib
from typing import Any

import numpy as np

from echograd import ArgumentError, ArgumentTypeError


def shown(value: object) -> str:
    """Return a value as it goes into a message: short, and no contents of arrays."""
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} with shape {value.shape}"
    if isinstance(value, str | int | float | bool | None):
        text = repr(value) if not isinstance(value, str) or len(value) <= 60 else f"{value[:60]!r}..."
        return text if len(text) <= 70 else f"{text[:60]}..."
    return f"a {type(value).__name__}"


def integer(name: str, value: Any, least: int | None = None, most: int | None = None) -> int:
    """Return an argument as an int.

    Raises:
        TypeError: it is no integer (Python's or NumPy's); True and False are none here.
        ValueError: it is out of range.
    """
    try:
        if isinstance(value, bool | np.bool_ | np.ndarray):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise ArgumentTypeError(f"{name} must be an integer, not {shown(value)}.") from None
    if (least is not None and number < least) or (most is not None and number > most):
        limits = f"at least {least}" if most is None else f"from {least} to {most}"
        raise ArgumentError(f"{name} must be {limits}, not {shown(number)}.")
    return number


def real(name: str, value: Any) -> float:
    """Return an argument as a float.

    Raises:
        TypeError: it is no real number.
        ValueError: it is NaN or infinite.
    """
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Real):
        raise ArgumentTypeError(f"{name} must be a real number, not {shown(value)}.")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ArgumentError(f"{name} must be finite, not {shown(value)}.")
    return number


def flag(name: str, value: Any) -> bool:
    """Return an argument as a bool.

    Raises:
        TypeError: it is neither True nor False.
    """
    if not isinstance(value, bool | np.bool_):
        raise ArgumentTypeError(f"{name} must be True or False, not {shown(value)}.")
    return bool(value)


def instance(name: str, value: Any, kind: type, remedy: str) -> None:
    """Check the type of an argument.

    Raises:
        TypeError: it is of another type.
    """
    if not isinstance(value, kind):
        raise ArgumentTypeError(f"{name} must be a {kind.__name__}, not {shown(value)}. {remedy}")


def array(name: str, value: Any) -> None:
    """Check that an argument is a NumPy array.

    Raises:
        TypeError: it is something else.
    """
    if not isinstance(value, np.ndarray):
        raise ArgumentTypeError(f"{name} must be a NumPy array, not {shown(value)}. `np.asarray` converts.")


def as_path(value: Any, name: str = "path") -> pathlib.Path:
    """Return an argument as a path.

    Raises:
        TypeError: it is no path.
        ValueError: it is empty, or no system could have a file of this name.
    """
    try:
        text = os.fspath(value)
    except TypeError:
        text = None
    if not isinstance(text, str):
        raise ArgumentTypeError(f"{name} must be a str or a path, not {shown(value)}.")
    if not text or "\0" in text:
        raise ArgumentError(f"{name} is {shown(text)}, which names no file. Pass the name of a file or folder.")
    return pathlib.Path(text)
