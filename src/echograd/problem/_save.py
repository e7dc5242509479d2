"""Which nodes of a trajectory are kept."""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from .._internal import _checks
from .._internal._errors import ArgumentError


class AbstractSave(eqx.Module):
    """Which nodes are kept, and which values of them."""

    @abc.abstractmethod
    def stride(self, steps: int) -> int | None:
        """Return the distance between kept nodes, from node 0 on; `None` keeps only the final state."""

    @property
    def nodes(self) -> Int[Array, " rows"] | None:
        """The kept nodes in ascending order, if they are not a stride apart; `None` otherwise."""
        return None

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


class AtNodes(AbstractSave):
    """Keep the nodes of a list on a new leading axis, as `q[nodes]` selects.

    Args:
        nodes: numbers of nodes, 0..N, in ascending order, each once.

    Raises:
        ArgumentError: if the numbers are not such a list, or (when it is solved) if one is above N.

    Example:
        ```python
        sol = eg.solve(system, boundary, dt=0.01, steps=100, save=eg.AtNodes([0, 10, 11, 100]))
        sol.t  # [0.0, 0.1, 0.11, 1.0]
        ```
    """

    numbers: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, nodes: Any) -> None:
        if np.ndim(nodes) != 1 or not len(nodes):
            raise ArgumentError(f"AtNodes: nodes={_checks.shown(nodes)}; pass a list of node numbers, such as [0, 50].")
        what = "the number of a node"
        self.numbers = tuple(_checks.integer("AtNodes", f"nodes[{i}]", k, 0, what=what) for i, k in enumerate(nodes))
        falls = [i for i, (a, b) in enumerate(zip(self.numbers, self.numbers[1:], strict=False)) if a >= b]
        if falls:
            i = falls[0]
            raise ArgumentError(
                f"AtNodes: nodes[{i}]={self.numbers[i]} and nodes[{i + 1}]={self.numbers[i + 1]}; list every node once "
                "and in ascending order. Select rows of the result for another order."
            )

    def stride(self, steps: int) -> int | None:
        return None

    def resolved(self, steps: int) -> "ChosenNodes":
        """Return the save rule of a run with so many steps."""
        if self.numbers[-1] > steps:
            raise ArgumentError(
                f"AtNodes: nodes[{len(self.numbers) - 1}]={self.numbers[-1]}, and the last node of {steps} steps is "
                f"{steps}."
            )
        return ChosenNodes(jnp.asarray(self.numbers, jnp.int32), False)


class AtTimes(AbstractSave):
    r"""Keep the states at given times on a new leading axis, also between the nodes.

    A state between the nodes $k$ and $k + 1$ is $\Phi_s(z_k, u_k)$ with $s = t - t_k$: one shorter step of the same
    scheme, which has the order of the scheme and joins the nodes continuously. It is differentiated exactly, with
    respect to the times too.

    Args:
        times: times from `t0` to the end of the run, in any order, shape (m,), in the unit of `dt`.

    Raises:
        ArgumentError: if the times are not such an array, or (when it is solved) if one is outside of the run, at run
            time if the times are traced.

    Example:
        ```python
        sol = eg.solve(system, boundary, dt=0.1, steps=100, save=eg.AtTimes([0.0, 0.25, 3.7]))
        sol.t  # [0.0, 0.25, 3.7]
        ```
    """

    times: Float[Array, " m"]

    def __init__(self, times: Any) -> None:
        if isinstance(times, list | tuple) and all(isinstance(t, jax.Array | float | int) for t in times):
            times = jnp.asarray(times) if times else None
        found = _checks.array("AtTimes", "times", times)
        if not isinstance(found, jax.Array) or found.ndim != 1 or not found.size:
            raise ArgumentError(f"AtTimes: times={_checks.shown(times)}; pass a list or an array of shape (m,).")
        self.times = found

    def stride(self, steps: int) -> int | None:
        return None


class ChosenNodes(AbstractSave):
    """Keep the nodes that `AtNodes` or `AtTimes` chose; rows of nodes beyond the last one stay undefined."""

    chosen: Int[Array, " rows"]
    between: bool = eqx.field(static=True)  # whether states between the nodes are made from these

    @property
    def nodes(self) -> Int[Array, " rows"]:
        return self.chosen

    def stride(self, steps: int) -> int | None:
        return None

    def row(self, k: Int[Array, ""]) -> Int[Array, ""]:
        """Return the row of node `k`, or of the next kept node after it; one beyond the last row if there is none."""
        return jnp.searchsorted(self.chosen, k, method="scan_unrolled").astype(jnp.int32)


class SaveFunction(AbstractSave):
    """Keep a function of time and state at every node, for `save=function`."""

    function: Callable[[Any, PyTree, PyTree], PyTree]

    def stride(self, steps: int) -> int | None:
        return 1

    def observe(self, t: Any, q: PyTree, p: PyTree) -> PyTree:
        return self.function(t, q, p)
