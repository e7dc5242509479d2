"""The base class of boundary conditions."""

import abc
from typing import Any, NamedTuple

import equinox as eqx
from jaxtyping import Array, Float, PyTree

from ..systems import Hamiltonian


class End(NamedTuple):
    """One end of a trajectory: its time, and the input held during the step that touches it.

    Example:
        ```python
        start, stop = eg.boundary.End(0.0, None), eg.boundary.End(2.0, None)
        B, b = eg.Robin(1.0, 2.0).rows(system, start, stop, q)
        ```
    """

    t: Any
    u: Any


class AbstractBoundary(eqx.Module):
    r"""A condition on the ends $z_\partial = (q_0, p_0, q_N, p_N)$ of a trajectory, linear in them: $B z_\partial = b$.

    Coordinates and momenta are flattened in the order of their PyTree, so that with $n$ coordinates $B$ has $2n$ rows
    and $4n$ columns.

    Example:
        ```python
        class Closed(eg.boundary.AbstractBoundary):  # the trajectory ends where it began
            def structure(self):
                return None

            def rows(self, system, start, stop, like):
                one, zero = jnp.eye(like.size), jnp.zeros((like.size, like.size))
                return jnp.block([[one, zero, -one, zero], [zero, one, zero, -one]]), jnp.zeros(2 * like.size)

        eg.defect(Closed(), like=q)  # 0: its own dual
        ```
    """

    @abc.abstractmethod
    def structure(self) -> PyTree:
        """Return coordinates of the shape that the condition requires, or `None` if it fits any shape."""

    @abc.abstractmethod
    def rows(
        self, system: Hamiltonian, start: End, stop: End, like: PyTree
    ) -> tuple[Float[Array, "2n 4n"], Float[Array, " 2n"]]:
        """Return $B$ and $b$ for a system with coordinates shaped like `like`."""
