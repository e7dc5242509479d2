"""What an integrator does: advance a state by one step, and read the discrete action while doing so."""

import abc
from typing import Any

import equinox as eqx
from jaxtyping import Array, Float, Int, PyTree

from .. import _tree
from ..systems import SeparableHamiltonian

State = tuple[PyTree, PyTree]


class World(eqx.Module):
    """Everything that a step depends on besides the state: what a gradient can be taken with respect to.

    The integrator's map and its discrete action are functions of these four things. A *reading* is the derivative of
    the action with respect to them, in a tree of this same shape, with `None` for what nobody asked for. In a whole
    problem `u` has a leading axis of steps; `at(k)` is the world of one step.
    """

    system: SeparableHamiltonian
    u: Any
    h: Float[Array, ""]
    t0: Float[Array, ""]

    def at(self, k: Int[Array, ""]) -> "World":
        """Return the world of step `k`, with the input that is held during it."""
        return World(self.system, _tree.take(self.u, k), self.h, self.t0)

    def without_inputs(self) -> "World":
        """Return the part that is the same at every step."""
        return World(self.system, None, self.h, self.t0)

    def time(self, k: Int[Array, ""]) -> Float[Array, ""]:
        """Return the time of node `k`."""
        return self.t0 + k.astype(self.h.dtype) * self.h


class AbstractIntegrator(eqx.Module):
    r"""A self-adjoint, variational one-step map $\Phi_h$.

    Self-adjoint: $\Phi_{-h} \circ \Phi_h = 1$, so that with a momentum flip $R$ and a kinetic energy even in the
    momentum, $R\,\Phi_h\,R\,\Phi_h = 1$ and an echo retraces. Variational: the map comes from a discrete action, whose
    derivatives with respect to parameters are the readings of an echo.
    """

    order: eqx.AbstractVar[int]

    @property
    @abc.abstractmethod
    def stability_limit(self) -> float:
        r"""Largest $h^2 \omega^2$ at which a harmonic oscillator stays bounded."""

    @abc.abstractmethod
    def step(self, world: World, k: Int[Array, ""], z: State) -> State:
        r"""Advance the state from node `k` to node `k + 1`."""

    @abc.abstractmethod
    def echo_step(self, wanted: World, rest: World, k: Int[Array, ""], z: State) -> tuple[State, World]:
        r"""Carry a momentum-flipped state from node `k + 1` back to node `k`, reading the action on the way.

        `wanted` and `rest` are the two halves of a `World` split by `equinox.partition`.

        Returns:
            The state, and the reading $r_k = \partial L_d / \partial(\cdot)$ for every leaf of `wanted`.
        """
