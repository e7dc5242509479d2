"""The base class of integrators: take one step, and read the discrete action on the way."""

import abc
from typing import Any, Literal

import equinox as eqx
import jax
from jaxtyping import Array, Float, Int, PyTree

from .._internal import _tree
from ..systems import Dissipative, Hamiltonian

State = tuple[PyTree, PyTree]

# "forward": from node k to k + 1. "backward": from k + 1 to k, by the inverse map. "echo": from k + 1 to k, by the
# forward map on the time-reversed state.
Direction = Literal["forward", "backward", "echo"]


class StepInputs(eqx.Module):
    """Everything that a step depends on besides the state.

    The integrator's map and its discrete action are functions of `system`, `u`, `h` and `t0`. A *reading* is the
    derivative of the action with respect to these, in a tree of the same structure, with `None` for leaves that are not
    wanted. In a whole problem `u` has a leading axis of steps; `at(k)` selects one step. `grid` is the grid to which an
    exact integrator rounds increments, else `None`; it has no derivative.

    Example:
        ```python
        given = eg.integrators.StepInputs(system, None, jnp.asarray(0.1), jnp.asarray(0.0))
        q, p = eg.Leapfrog().step(given, jnp.int32(0), (q, p))
        ```
    """

    system: Any  # a Hamiltonian, or a Dissipative system
    u: Any
    h: Any  # real scalars; in a reading, a mask or a half of a partition also None or bool
    t0: Any
    grid: Any = None

    def at(self, k: Int[Array, ""]) -> "StepInputs":
        """Return the step inputs of step `k`, with the input that is held during it."""
        return StepInputs(self.system, _tree.take(self.u, k), self.h, self.t0, self.grid)

    def without_inputs(self) -> "StepInputs":
        """Return the same without `u`: the part that all steps share."""
        return StepInputs(self.system, None, self.h, self.t0, self.grid)

    def seen(self, direction: Direction) -> "StepInputs":
        """Return the step inputs in this direction: an echo has mirrored inputs."""
        if direction != "echo":
            return self
        return StepInputs(self.system, self.system.mirror_input(self.u), self.h, self.t0, self.grid)

    def time(self, k: Int[Array, ""]) -> Float[Array, ""]:
        """Return the time of node `k`."""
        return self.t0 + k.astype(self.h.dtype) * self.h


def sign(direction: Direction) -> int:
    """Return the sign of the time step: -1 for "backward", +1 for "forward" and "echo"."""
    return -1 if direction == "backward" else 1


def time_reversed(system: Hamiltonian | Dissipative, z: State) -> State:
    r"""Return $(\Pi q, -\Pi p)$: the state from which the machine runs back along its own path."""
    q, p = z
    return system.mirror(q), _tree.negate(system.mirror(p))


def is_mirrored(system: Hamiltonian, q: PyTree) -> bool:
    """Return whether the mirror of the system changes coordinates."""
    return any(a is not b for a, b in zip(jax.tree.leaves(system.mirror(q)), jax.tree.leaves(q), strict=True))


class AbstractIntegrator(eqx.Module):
    r"""A self-adjoint, variational one-step map $\Phi_h$.

    Self-adjoint: $\Phi_{-h} \circ \Phi_h = 1$, so that with the time reversal $R$ of the system
    $R\,\Phi_h\,R\,\Phi_h = 1$ and an echo retraces. Variational: the map comes from a discrete action, whose
    derivatives with respect to parameters are the readings of an echo.

    Example: see `integrators.AbstractSplitting` and `integrators.StepInputs`.
    """

    order: eqx.AbstractVar[int]

    @property
    @abc.abstractmethod
    def stability_limit(self) -> float:
        r"""Largest $h^2 \omega^2$ at which a harmonic oscillator stays bounded."""

    @abc.abstractmethod
    def check(self, system: Hamiltonian | Dissipative) -> None:
        """Raise if the scheme cannot step the system."""

    def prepared(self, given: StepInputs, z0: State) -> tuple[StepInputs, State]:
        """Return the step inputs of a whole run and its initial state, prepared for this integrator."""
        return given, z0

    @abc.abstractmethod
    def read(
        self, wanted: StepInputs, rest: StepInputs, k: Int[Array, ""], z: State, direction: Direction = "forward"
    ) -> tuple[State, StepInputs]:
        r"""Take step `k` in a direction, and read the action on the way.

        `wanted` and `rest` are the two halves of a `StepInputs` split by `equinox.partition`. Forward, a step goes from
        node `k` to node `k + 1`; backward and as an echo, from `k + 1` to `k`. The state of an echo is time-reversed.

        Returns:
            The new state, and the reading $r_k = \partial L_d / \partial(\cdot)$ for every leaf of `wanted`. The
            reading is the same in all directions.
        """

    def recorded(self, given: StepInputs, k: Int[Array, ""], z: State, record: Any) -> tuple[State, Any]:
        """Take step `k` forward, and record what friction destroys; only schemes in fixed point do."""
        raise NotImplementedError(f"{type(self).__name__} has no fixed point, so it keeps no record.")

    def rewound(
        self, wanted: StepInputs, rest: StepInputs, k: Int[Array, ""], z: State, bars: State, record: Any
    ) -> tuple[State, State, StepInputs, Any]:
        """Undo step `k`, and pull cotangents back through it; only in fixed point.

        Returns:
            The state before the step, its cotangents, those of `wanted`, and the record without this step.
        """
        raise NotImplementedError(f"{type(self).__name__} has no fixed point, so its steps are not undone.")

    def step(self, given: StepInputs, k: Int[Array, ""], z: State, direction: Direction = "forward") -> State:
        """Take step `k` in a direction without reading anything."""
        nothing = jax.tree.map(lambda _: None, given)
        return self.read(nothing, given, k, z, direction)[0]
