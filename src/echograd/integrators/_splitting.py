"""Splitting schemes: compositions of drifts and kicks."""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from .._internal import _tree
from .._internal._energy import derivatives, zero_reading
from .._internal._errors import ArgumentTypeError
from ..friction import Damped
from ..systems import Dissipative, Hamiltonian, SeparableHamiltonian
from ._base import AbstractIntegrator, Direction, State, StepInputs, sign
from ._damped import ahead
from ._grid import rounded, within
from ._palindrome import Substep, drift_action, kick_action

# Longer palindromes run their substeps in a loop instead of unrolled, to shorten compilation.
_UNROLL = 8


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

    def check(self, system: Hamiltonian | Dissipative | Damped) -> None:
        if isinstance(system, Damped) and self.order == 2:
            return
        if isinstance(system, Damped):
            raise ArgumentTypeError(
                f"{type(self).__name__}: a Damped system has its friction in the middle of the step, which is of order "
                f"2, not {self.order}. Pass integrator=Leapfrog(exact=True) or VelocityVerlet(exact=True)."
            )
        if not isinstance(system, SeparableHamiltonian):
            raise ArgumentTypeError(
                f"{type(self).__name__} splits the energy into T(p) and V(q), but {type(system).__name__} is "
                "not a SeparableHamiltonian. Derive it from SeparableHamiltonian if its energy splits, or "
                "pass integrator=ImplicitMidpoint()."
            )

    def prepared(self, given: StepInputs, z0: State) -> tuple[StepInputs, State]:
        if isinstance(given.system, Damped):
            given = eqx.tree_at(lambda w: w.system, given, given.system.over_one_step(given.h, z0[1]))
        return given, z0

    def step(self, given: StepInputs, k: Int[Array, ""], z: State, direction: Direction = "forward") -> State:
        if isinstance(given.system, Damped):
            return ahead(self.substeps, given, k, z)[0]
        return super().step(given, k, z, direction)

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
