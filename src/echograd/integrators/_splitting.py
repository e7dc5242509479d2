"""Splitting schemes: palindromes of drifts and kicks, stored as data."""

import functools
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from .._internal import _tree
from .._internal._energy import derivatives, zero_reading
from .._internal._errors import ArgumentError, ArgumentTypeError
from ..systems import Dissipative, Hamiltonian, SeparableHamiltonian
from ._base import AbstractIntegrator, Direction, State, StepInputs, sign
from ._grid import rounded, within

# Longer palindromes run their substeps in a loop instead of unrolled, to shorten compilation.
_UNROLL = 8


class Substep(NamedTuple):
    r"""A drift or a kick: its length and its clock reading, both in units of the step.

    Drifts advance the clock that kicks read, and kicks the clock that drifts read. With this convention every scheme is
    an ordinary splitting of the extended autonomous system $T(\tau, p) + V(\sigma, q) + E_\sigma + E_\tau$. So explicit
    time changes neither the order nor the self-adjointness.
    """

    kind: Literal["drift", "kick"]
    length: float
    clock: float


def palindrome(lengths: tuple[float, ...], first: Literal["drift", "kick"]) -> tuple[Substep, ...]:
    """Return alternating substeps with these lengths.

    Args:
        lengths: a palindrome, in units of the step. The drifts must sum to one step, and so must the kicks.
        first: the kind of the first substep.

    Raises:
        ArgumentError: if the lengths are not a palindrome or do not sum to one step.

    Example:
        ```python
        eg.integrators.palindrome((0.5, 1.0, 0.5), "drift")  # leapfrog
        ```
    """
    if lengths != lengths[::-1]:
        raise ArgumentError(
            f"The lengths {lengths} are not a palindrome, so the step is not its own adjoint and no echo retraces it. "
            "Append the mirrored coefficients."
        )
    kinds: tuple[Literal["drift", "kick"], ...] = ("drift", "kick") if first == "drift" else ("kick", "drift")
    clocks = {"drift": 0.0, "kick": 0.0}
    substeps = []
    for i, length in enumerate(lengths):
        kind, other = kinds[i % 2], kinds[(i + 1) % 2]
        substeps.append(Substep(kind, length, clocks[other]))
        clocks[kind] += length
    for kind, total in clocks.items():
        if abs(total - 1) > 1e-13:
            raise ArgumentError(f"The {kind}s of {lengths} add up to {total}, not to one step.")
    return tuple(substeps)


def drift_action(given: StepInputs, k: Any, p: PyTree, length: Any, clock: Any) -> Float[Array, ""]:
    """Return the contribution of a drift to the discrete action, at its constant momentum."""
    t = given.t0 + (k + clock) * given.h
    return -(length * given.h) * given.system.kinetic(t, p)  # pyright: ignore[reportAttributeAccessIssue]


def kick_action(given: StepInputs, k: Any, q: PyTree, length: Any, clock: Any) -> Float[Array, ""]:
    """Return the contribution of a kick to the discrete action, at its constant position."""
    t = given.t0 + (k + clock) * given.h
    return -(length * given.h) * given.system.potential(t, q, given.u)  # pyright: ignore[reportAttributeAccessIssue]


class AbstractSplitting(AbstractIntegrator):
    r"""A composition of exact flows of $T$ (drifts) and $V$ (kicks) whose lengths are a palindrome.

    Example:
        ```python
        class Omelyan(eg.integrators.AbstractSplitting):
            order = 2
            substeps = eg.integrators.palindrome((0.1932, 0.5, 0.6136, 0.5, 0.1932), "drift")

        eg.solve(system, start, dt=0.1, steps=20, integrator=Omelyan())
        ```
    """

    substeps: eqx.AbstractVar[tuple[Substep, ...]]

    @property
    def stability_limit(self) -> float:
        return _stability_limit(self.substeps)

    def check(self, system: Hamiltonian | Dissipative) -> None:
        if not isinstance(system, SeparableHamiltonian):
            raise ArgumentTypeError(
                f"{type(self).__name__} splits the energy into T(p) and V(q), but {type(system).__name__} is "
                "not a SeparableHamiltonian. Derive it from SeparableHamiltonian if its energy splits, or "
                "pass integrator=ImplicitMidpoint()."
            )

    def read(
        self, wanted: StepInputs, rest: StepInputs, k: Int[Array, ""], z: State, direction: Direction = "forward"
    ) -> tuple[State, StepInputs]:
        k = k.astype(eqx.combine(wanted, rest).h.dtype)
        s = sign(direction)
        grid_q, grid_p = (None, None) if rest.grid is None else rest.grid

        def slope(action: Any, x: PyTree, length: Any, clock: Any) -> tuple[StepInputs, PyTree]:
            def of(wanted: StepInputs, x: PyTree) -> Float[Array, ""]:
                return action(eqx.combine(wanted, rest).seen(direction), k, x, length, clock)

            return derivatives(of, wanted, x)

        def drift(carry: Any, length: Any, clock: Any) -> Any:
            (q, p), reading = carry
            r, dp = slope(drift_action, p, length, clock)
            dp = rounded(dp, grid_q)
            return (_tree.add(q, dp) if s < 0 else _tree.subtract(q, dp), p), _tree.add(reading, r)

        def kick(carry: Any, length: Any, clock: Any) -> Any:
            (q, p), reading = carry
            r, dq = slope(kick_action, q, length, clock)
            dq = rounded(dq, grid_p)
            return (q, _tree.subtract(p, dq) if s < 0 else _tree.add(p, dq)), _tree.add(reading, r)

        # Backward: the reversed palindrome, with every substep at the clock reading of its forward counterpart.
        substeps = self.substeps if direction == "forward" else self.substeps[::-1]
        z, reading = self._fold(drift, kick, (z, zero_reading(wanted, z)), substeps)
        return within(z, rest.grid), reading

    def _fold(self, drift: Any, kick: Any, carry: Any, substeps: tuple[Substep, ...]) -> Any:
        """Apply the substeps to `carry`."""
        act = {"drift": drift, "kick": kick}
        if len(substeps) <= _UNROLL:
            for s in substeps:
                carry = act[s.kind](carry, s.length, s.clock)
            return carry

        *pairs, last = substeps
        first, second = substeps[0].kind, substeps[1].kind
        dtype = jax.tree.leaves(carry)[0].real.dtype
        table = jnp.asarray([(s.length, s.clock) for s in pairs], dtype).reshape(-1, 2, 2)

        def body(carry: Any, row: Float[Array, "2 2"]) -> tuple[Any, None]:
            carry = act[first](carry, row[0, 0], row[0, 1])
            return act[second](carry, row[1, 0], row[1, 1]), None

        carry, _ = jax.lax.scan(body, carry, table)
        return act[last.kind](carry, last.length, last.clock)


@functools.cache
def _stability_limit(substeps: tuple[Substep, ...]) -> float:
    """Return the first x = h²ω² at which the one-step matrix of an oscillator leaves |trace| ≤ 2."""

    def half_trace(x: np.ndarray) -> np.ndarray:
        m = np.broadcast_to(np.eye(2), (*x.shape, 2, 2)).copy()
        for s in substeps:
            factor = np.broadcast_to(np.eye(2), m.shape).copy()
            if s.kind == "drift":
                factor[..., 0, 1] = s.length
            else:
                factor[..., 1, 0] = -s.length * x
            m = factor @ m
        return np.abs(np.trace(m, axis1=-2, axis2=-1)) / 2

    x = np.linspace(0, 16, 160_001)
    outside = np.flatnonzero(half_trace(x) > 1 + 1e-9)
    return float(x[outside[0] - 1]) if outside.size else float(x[-1])
