"""The base class of nudges: ways of taking d/dβ at β = 0 of a run that is pushed with strength β."""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._internal import _tree

Scalar = Float[Array, ""]
Pushed = Callable[[Scalar, PyTree], tuple[PyTree, PyTree]]


class AbstractNudge(eqx.Module):
    r"""A way of taking $d/d\beta\,|_{\beta=0}$ of readings along a run nudged with strength $\beta$.

    A scheme carries an *ensemble* instead of one state: the state and its tangent, or the states at several strengths.
    It advances the ensemble one piece of the run at a time, so no other state is in memory.

    Example: see `nudge.AbstractFiniteNudge`.
    """

    @abc.abstractmethod
    def strength(self, z: PyTree, load: Scalar, steps: int) -> Scalar:
        """Return β for a run of `steps` steps of states like `z`.

        `load` is the total size of the nudges per unit of β, relative to the size of the state.
        """

    @abc.abstractmethod
    def start(self, z: PyTree) -> PyTree:
        """Return the ensemble in which every member is at the state `z`."""

    @abc.abstractmethod
    def advance(self, beta: Scalar, pushed: Pushed, ensemble: PyTree) -> tuple[PyTree, PyTree]:
        """Advance the ensemble by `pushed(β, z) -> (z', reading)`; return it and d/dβ of the reading."""

    @abc.abstractmethod
    def response(self, beta: Scalar, ensemble: PyTree) -> PyTree:
        """Return d/dβ of the state."""

    @abc.abstractmethod
    def retraced(self, ensemble: PyTree) -> tuple[PyTree, PyTree]:
        """Return the best estimate of the un-nudged state, and that estimate displaced by its uncertainty."""

    def check(self, x: Any, beta: Scalar, ensemble: PyTree, load: Scalar, steps: int, sizes: PyTree = None) -> Any:
        """Return `x` unchanged, or raise at run time if the nudge is lost in rounding. By default nothing is checked.

        `sizes` are the sizes of the leaves of the state along the path, by default those of the last state.
        """
        return x


def relative_load(load: Scalar, z: PyTree) -> Scalar:
    """Return the total size of nudges relative to the size of a state. A state of size zero counts as one."""
    size = _tree.norm(z)
    return load / jnp.where(size > 0, size, 1).astype(load.dtype)
