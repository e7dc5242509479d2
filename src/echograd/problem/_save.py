"""Which nodes of a trajectory are kept."""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
from jaxtyping import PyTree

from .._internal import _checks


class AbstractSave(eqx.Module):
    """Which nodes are kept, and which values of them."""

    @abc.abstractmethod
    def stride(self, steps: int) -> int | None:
        """Return the distance between kept nodes, from node 0 on; `None` keeps only the final state."""

    def observe(self, t: Any, q: PyTree, p: PyTree) -> PyTree:
        """Return the values to keep at a node."""
        return q, p


class AllNodes(AbstractSave):
    """Keep every node 0..N on a new leading axis. Memory grows with N.

    Example:
        ```python
        sol = eg.solve(system, boundary, dt=0.01, steps=100, save=eg.AllNodes())
        sol.q.shape[0]  # 101
        ```
    """

    def stride(self, steps: int) -> int | None:
        return 1


class FinalNode(AbstractSave):
    """Keep the final state only, without a leading axis. Memory does not grow with N.

    Example:
        ```python
        sol = eg.solve(system, boundary, dt=0.01, steps=100, save=eg.FinalNode())
        sol.q.shape == q.shape
        ```
    """

    def stride(self, steps: int) -> int | None:
        return None


class EveryNode(AbstractSave):
    """Keep nodes 0, k, 2k, … on a new leading axis, as `q[::k]` selects.

    Args:
        k: distance of kept nodes, at least 1.

    Raises:
        ArgumentError: if `k` is not a positive integer.

    Example:
        ```python
        sol = eg.solve(system, boundary, dt=0.01, steps=100, save=eg.EveryNode(10))
        sol.q.shape[0]  # 11
        ```
    """

    k: int = eqx.field(
        static=True, converter=_checks.converter(_checks.integer, "EveryNode", "k", what="the distance of kept nodes")
    )

    def stride(self, steps: int) -> int | None:
        return self.k


class SaveFunction(AbstractSave):
    """Keep a function of time and state at every node, for `save=function`."""

    function: Callable[[Any, PyTree, PyTree], PyTree]

    def stride(self, steps: int) -> int | None:
        return 1

    def observe(self, t: Any, q: PyTree, p: PyTree) -> PyTree:
        return self.function(t, q, p)
