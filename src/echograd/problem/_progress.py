"""How far a run is, reported while it runs."""

import sys
from collections.abc import Callable
from typing import Any

from .._internal import _checks


def print_progress(step: int, of: int, phase: str) -> None:
    """Print how many steps of a phase are done, on the error stream."""
    print(f"solve: {phase} {step} of {of} steps", file=sys.stderr, flush=True)


def reporter(progress: Any) -> Callable[[int, int, str], None] | None:
    """Return the function that is called with `(step, of, phase)`, or `None` for no report."""
    if progress is None or progress is False:
        return None
    if progress is True:
        return print_progress
    return _checks.function("solve", "progress", progress, "(step, of, phase) -> None, nor True or False")
