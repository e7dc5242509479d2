"""The implicit midpoint rule, for energies that do not separate."""

import math
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from .._internal import _tree
from .._internal._energy import reading, slope
from .._internal._errors import ArgumentTypeError
from .._internal._root import root
from ..systems import Dissipative, Hamiltonian
from ..systems._legendre import LegendreHamiltonian
from ._base import AbstractIntegrator, Direction, State, StepInputs, sign


class ImplicitMidpoint(AbstractIntegrator):
    r"""The implicit midpoint rule: second order, for any Hamiltonian or Lagrangian.

    $$z' = z + h\,J\,\nabla H\bigl(t + \tfrac h2, \tfrac{z + z'}2, u\bigr)$$

    In Lagrangian variables it is the variational integrator of
    $L_d(q, q') = h\,L\bigl(t + \tfrac h2, \tfrac{q + q'}2, \tfrac{q' - q}h, u\bigr)$. The midpoint is found by Newton's
    method to rounding, with a dense Jacobian: the cost of a step grows as the cube of the number of coordinates. If
    Newton's method fails, the state becomes NaN, and `solve` reports it. Unconditionally stable for linear systems.

    For a `Dissipative` system it is the same rule, $p' - p = h\,(F - D \dot q)$ and $q' - q = h\,\dot q$ with the right
    sides at the midpoint. It works without mass, too.

    Source: E. Hairer, C. Lubich, G. Wanner, *Geometric Numerical Integration*, 2nd ed. (2006), eq. I.1.15 and
    section VI.6; J. E. Marsden and M. West, Acta Numerica 10 (2001) 357, example 2.3.2.

    Example:
        ```python
        eg.solve(system, boundary, dt=0.01, steps=100, integrator=eg.ImplicitMidpoint())
        ```
    """

    order: ClassVar[int] = 2

    @property
    def stability_limit(self) -> float:
        return math.inf

    def check(self, system: Hamiltonian | Dissipative) -> None:
        pass

    def read(
        self, wanted: StepInputs, rest: StepInputs, k: Int[Array, ""], z: State, direction: Direction = "forward"
    ) -> tuple[State, StepInputs]:
        if isinstance(rest.system, Dissipative):
            return _dissipative_step(wanted, rest, k, z, direction)
        if isinstance(eqx.combine(wanted, rest).system, LegendreHamiltonian):
            return _read_lagrangian(wanted, rest, k, z, direction)

        def action(wanted: StepInputs, z: State) -> Float[Array, ""]:
            given = eqx.combine(wanted, rest).seen(direction)
            return -given.h * given.system(_middle(given, k), *z, given.u)

        flat, unravel = jax.flatten_util.ravel_pytree(z)

        def half_step(z: State) -> State:
            """Return half of the increment of the state, evaluated at the midpoint `z`."""
            dq, dp = slope(lambda z: action(wanted, z), z)
            return _tree.scale(-0.5 * sign(direction), dp), _tree.scale(0.5 * sign(direction), dq)

        def residual(x: Any) -> Any:
            return x - flat - _tree.flat(half_step(unravel(x)))

        middle = unravel(root(residual, flat, halves=True))
        return _tree.add(z, _tree.scale(2, half_step(middle))), reading(action, wanted, middle)


def _middle(given: StepInputs, k: Int[Array, ""]) -> Float[Array, ""]:
    """Return the time in the middle of step `k`."""
    return given.t0 + (k.astype(given.h.dtype) + 0.5) * given.h


def _read_lagrangian(
    wanted: StepInputs, rest: StepInputs, k: Int[Array, ""], z: State, direction: Direction
) -> tuple[State, StepInputs]:
    r"""Take the same step in Lagrangian variables. The only unknown is the velocity at the midpoint.

    $$\partial_v L = p + \tfrac h2 \partial_q L \quad\text{at}\quad (q + \tfrac h2 v,\, v)$$

    With the Hamiltonian, every evaluation of the energy would need a root search inside the root search.
    """
    (q, p), half = z, 0.5 * sign(direction) * eqx.combine(wanted, rest).h

    def action(wanted: StepInputs, x: State) -> Float[Array, ""]:
        given = eqx.combine(wanted, rest).seen(direction)
        return given.system.lagrangian(_middle(given, k), *x, given.u)  # pyright: ignore[reportAttributeAccessIssue]

    def slopes(v: PyTree) -> tuple[State, State]:
        x = _tree.add(q, _tree.scale(half, v)), v
        return x, slope(lambda x: action(wanted, x), x)

    flat, unravel = jax.flatten_util.ravel_pytree(p)

    def residual(v: Any) -> Any:
        _, (force, momentum) = slopes(unravel(v))
        balance = _tree.subtract(_tree.subtract(momentum, p), _tree.scale(half, force))
        return _tree.flat(balance)

    v = unravel(root(residual, jnp.zeros_like(flat), terms=flat))
    middle, (force, _) = slopes(v)
    h = eqx.combine(wanted, rest).h

    def discrete(wanted: StepInputs, x: State) -> Float[Array, ""]:
        """Return h L at fixed ends, where the velocity is their difference divided by the step."""
        step = eqx.combine(wanted, rest).h
        return step * action(wanted, (x[0], _tree.scale(h / step, x[1])))

    read = reading(discrete, wanted, middle)
    return (_tree.add(q, _tree.scale(2 * half, v)), _tree.add(p, _tree.scale(2 * half, force))), read


def _dissipative_step(
    wanted: StepInputs, rest: StepInputs, k: Int[Array, ""], z: State, direction: Direction
) -> tuple[State, StepInputs]:
    r"""Step a damped system: solve for the velocity $v$ at the midpoint, $(q + \tfrac h2 v,\, M v)$."""
    if jax.tree.leaves(wanted):
        raise ArgumentTypeError(
            "A Dissipative system has no action, so there is nothing to read. Use gradient=Reciprocal() or Backprop()."
        )
    given = rest.seen(direction)
    system, t, half = rest.system, _middle(given, k), 0.5 * sign(direction) * given.h
    q, p = z
    flat, unravel = jax.flatten_util.ravel_pytree(p)

    def residual(x: Any) -> Any:
        v = unravel(x)
        change = _tree.subtract(system.force(t, _tree.add(q, _tree.scale(half, v)), given.u), system.friction(v))
        left = _tree.subtract(system.inertia(v), _tree.add(p, _tree.scale(half, change)))
        return _tree.flat(left)

    # Velocities below the rounding error of q / h change no coordinate.
    fast = _tree.scale(1 / given.h, jax.lax.stop_gradient(q))
    terms = _tree.add(system.inertia(fast), _tree.scale(half, system.friction(fast)))
    v = unravel(root(residual, jnp.zeros_like(flat), terms=_tree.flat(terms)))
    there = _tree.subtract(_tree.scale(2, system.inertia(v)), p)
    return (_tree.add(q, _tree.scale(2 * half, v)), there), wanted
