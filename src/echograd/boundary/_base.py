"""The base class of boundary conditions."""

import abc
from typing import Any, NamedTuple

import equinox as eqx
from jaxtyping import Array, Float, PyTree

from ..systems import Hamiltonian


class End(NamedTuple):
    """One end of a trajectory: its time, and the input held during the step that touches it."""

    t: Any
    u: Any


class AbstractBoundary(eqx.Module):
    r"""A condition on the ends $z_\partial = (q_0, p_0, q_N, p_N)$ of a trajectory, linear in them: $B z_\partial = b$.

    Coordinates and momenta are flattened in the order of their PyTree, so that with $n$ coordinates $B$ has $2n$ rows
    and $4n$ columns.
    """

    @abc.abstractmethod
    def structure(self) -> PyTree:
        """Return coordinates of the shape that the condition requires, or `None` if it fits any shape."""

    @abc.abstractmethod
    def rows(
        self, system: Hamiltonian, start: End, stop: End, like: PyTree
    ) -> tuple[Float[Array, "2n 4n"], Float[Array, " 2n"]]:
        """Return $B$ and $b$ for a system with coordinates shaped like `like`."""
