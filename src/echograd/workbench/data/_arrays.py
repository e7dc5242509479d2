"""Cases in arrays of the user, with axes as in scikit-learn and aeon: (cases, channels, steps)."""

from typing import Any

import numpy as np
from jaxtyping import Float

from echograd import ArgumentError, ArgumentTypeError
from echograd._internal._checks import shown

_FORMS = "an array of shape (cases, channels, steps) or (cases, steps), or a list of arrays of shape (channels, steps)"


def series_of(owner: str, name: str, cases: Any, lengths: Any = None) -> tuple[Float[np.ndarray, "_ channels"], ...]:
    """Return cases as float32 arrays of shape (steps, channels), without padding.

    Args:
        owner: name of the caller, for messages.
        name: name of the argument, for messages.
        cases: an array of shape (cases, channels, steps) or (cases, steps), or a list of arrays of shape
            (channels, steps) or (steps,). NaN in all channels at the end of a case is padding.
        lengths: number of valid steps of every case, shape (cases,); by default all steps.

    Raises:
        ArgumentTypeError: they are not real numbers.
        ArgumentError: they have another shape, or a value is missing or not finite in float32.
    """
    listed = isinstance(cases, list | tuple)
    items: Any = cases if listed else _array(owner, name, cases)
    if not listed and getattr(items, "ndim", 0) not in (2, 3):
        raise ArgumentError(f"{owner}: {name} has shape {np.shape(items)}. Pass {_FORMS}.")
    if len(items) == 0:
        raise ArgumentError(f"{owner}: {name} is empty. Pass at least one case.")
    valid = [None] * len(items) if lengths is None else _lengths(owner, lengths, len(items))
    found = []
    for number, (item, length) in enumerate(zip(items, valid, strict=True)):
        where = f"{owner}: {name}[{number}]"
        case = _array(owner, f"{name}[{number}]", item)
        if case.ndim not in (1, 2) or 0 in case.shape:
            raise ArgumentError(f"{where} has shape {case.shape}. Pass {_FORMS}, without axes of size 0.")
        case = np.atleast_2d(case).T
        if length is not None and not 1 <= length <= len(case):
            raise ArgumentError(f"{where} has {len(case)} steps, but its length is {length}.")
        found.append(_finite(where, case[:length]))
    channels = sorted({case.shape[1] for case in found})
    if len(channels) > 1:
        raise ArgumentError(
            f"{owner}: the cases of {name} have {channels[0]} to {channels[-1]} channels; all must have the same "
            "number. The axes of a case are (channels, steps)."
        )
    return tuple(found)


def _array(owner: str, name: str, value: Any) -> np.ndarray:
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):
        array = np.asarray(None)
    if array.dtype.kind not in "iufb":
        raise ArgumentTypeError(f"{owner}: {name}={shown(value)} must hold real numbers. Pass {_FORMS}.")
    return array


def _lengths(owner: str, lengths: Any, cases: int) -> list[int]:
    array = _array(owner, "lengths", lengths)
    if array.dtype.kind not in "iu" or array.shape != (cases,):
        raise ArgumentError(
            f"{owner}: lengths are {array.dtype} of shape {array.shape}; they must be integers of shape ({cases},), "
            "one for every case."
        )
    return array.tolist()


def _finite(where: str, case: np.ndarray) -> np.ndarray:
    """Return a case of shape (steps, channels) as float32 without its padding, or raise."""
    with np.errstate(over="ignore"):
        values = case.astype(np.float32)
    wrong = ~np.isfinite(values)
    if not wrong.any():
        return values
    present = np.flatnonzero(~np.isnan(case).all(axis=1))
    if not present.size:
        raise ArgumentError(f"{where}: all values are missing (NaN). Leave the case out.")
    end = int(present[-1]) + 1
    if wrong[:end].any():
        step, channel = np.argwhere(wrong[:end])[0]
        raise ArgumentError(
            f"{where}: the value at step {step} of channel {channel} is {case[step, channel]:g}, not a finite float32. "
            "Fill missing values first (np.interp, say), scale the channel, or leave the case out."
        )
    return values[:end]
