"""What a nudge is: a way of taking d/dβ at β = 0 of a run that is pushed with strength β."""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._internal import _tree

Pushed = Callable[[Float[Array, ""], PyTree], tuple[PyTree, PyTree]]


class AbstractNudge(eqx.Module):
    r"""A way of taking $d/d\beta\,|_{\beta=0}$ of readings along a run nudged with strength $\beta$.

    The run is taken one piece at a time. An *ensemble* is whatever the scheme carries in the place of one state: the
    state and its tangent, or the states at several strengths. So nothing but the ensemble is alive at any time.
    """

    @abc.abstractmethod
    def strength(self, z: PyTree, load: Float[Array, ""], steps: int) -> Float[Array, ""]:
        """Return β for a run of `steps` steps of states like `z`.

        `load` is the total size of the nudges per unit of β, relative to the size of the state.
        """

    @abc.abstractmethod
    def start(self, z: PyTree) -> PyTree:
        """Return the ensemble in which every member is at the state `z`."""

    @abc.abstractmethod
    def advance(self, beta: Float[Array, ""], pushed: Pushed, ensemble: PyTree) -> tuple[PyTree, PyTree]:
        """Take the ensemble through `pushed(β, z) -> (z', reading)`; return it and d/dβ of the reading."""

    @abc.abstractmethod
    def response(self, beta: Float[Array, ""], ensemble: PyTree) -> PyTree:
        """Return d/dβ of the state."""

    @abc.abstractmethod
    def retraced(self, ensemble: PyTree) -> tuple[PyTree, PyTree]:
        """Return the best estimate of the un-nudged state, and that estimate displaced by its uncertainty."""

    @abc.abstractmethod
    def check(
        self,
        x: Any,
        beta: Float[Array, ""],
        ensemble: PyTree,
        load: Float[Array, ""],
        steps: int,
        sizes: PyTree = None,
    ) -> Any:
        """Return `x` unchanged, or raise at run time where the nudge is lost in rounding.

        `sizes` are those of the leaves of the state along the path, by default those of the last state.
        """


def relative_load(load: Float[Array, ""], z: PyTree) -> Float[Array, ""]:
    """Return a total size of nudges relative to a state; zero counts as one."""
    size = _tree.norm(z)
    return load / jnp.where(size > 0, size, 1).astype(load.dtype)
