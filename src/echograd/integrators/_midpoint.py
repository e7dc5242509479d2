"""The implicit midpoint rule, for energies that do not separate."""

import math
from typing import Any, ClassVar

import equinox as eqx
import jax.flatten_util
from jaxtyping import Array, Float, Int

from .. import _tree
from .._energy import derivatives
from .._root import root
from ..systems import Hamiltonian
from ._base import AbstractIntegrator, Direction, State, World, sign


class ImplicitMidpoint(AbstractIntegrator):
    r"""The implicit midpoint rule: second order, for any Hamiltonian or Lagrangian, stable at any step.

    $$z' = z + h\,J\,\nabla H\bigl(t + \tfrac h2, \tfrac{z + z'}2, u\bigr)$$

    In Lagrangian variables it is the variational integrator of
    $L_d(q, q') = h\,L\bigl(t + \tfrac h2, \tfrac{q + q'}2, \tfrac{q' - q}h, u\bigr)$. The midpoint is found by Newton's
    method to rounding, with a dense Jacobian: the cost of a step grows as the cube of the number of coordinates. Where
    Newton's method fails the state becomes NaN, which `solve` reports.

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

    def check(self, system: Hamiltonian) -> None:
        pass

    def read(
        self, wanted: World, rest: World, k: Int[Array, ""], z: State, direction: Direction = "forward"
    ) -> tuple[State, World]:
        k = k.astype(eqx.combine(wanted, rest).h.dtype)

        def action(wanted: World, z: State) -> Float[Array, ""]:
            world = eqx.combine(wanted, rest).seen(direction)
            q, p = z
            return -world.h * world.system(world.t0 + (k + 0.5) * world.h, q, p, world.u)

        flat, unravel = jax.flatten_util.ravel_pytree(z)

        def half_step(z: State) -> State:
            """Return half of what the flow adds to the state, at the midpoint `z`."""
            _, (dq, dp) = derivatives(action, wanted, z)
            return _tree.scale(-0.5 * sign(direction), dp), _tree.scale(0.5 * sign(direction), dq)

        def residual(x: Any) -> Any:
            return x - flat - jax.flatten_util.ravel_pytree(half_step(unravel(x)))[0]

        middle = unravel(root(residual, flat))
        return _tree.add(z, _tree.scale(2, half_step(middle))), derivatives(action, wanted, middle)[0]
