"""Checks of nudges that are arguments."""

from typing import Any

import jax

from .._internal import _checks
from ._base import AbstractNudge
from ._holomorphic import Holomorphic
from ._infinitesimal import Infinitesimal


def checked_nudge(owner: str, nudge: Any) -> AbstractNudge:
    """Return the nudge, by default `Infinitesimal()`, or raise if it is not one."""
    nudge = Infinitesimal() if nudge is None else nudge
    what = "a nudge, an object such as Infinitesimal() or, with a number for its strength, Symmetric(beta)"
    return _checks.instance(owner, "nudge", nudge, AbstractNudge, what)


def is_holomorphic(gradient: Any) -> bool:
    """Return whether a gradient has a complex nudge."""
    is_one = lambda x: isinstance(x, Holomorphic)  # noqa: E731
    return any(map(is_one, jax.tree.leaves(gradient, is_leaf=is_one)))
