"""A charge in a magnetic field: a system whose time reversal needs a mirror."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from ._base import Hamiltonian, Scalar
from ._parameter import parameter, work


class ChargedParticle(Hamiltonian):
    r"""A charge in a plane, in a uniform magnetic field perpendicular to it and in a harmonic trap.

    $$H = \frac{|p - e A(q)|^2}{2m} + \tfrac12 k |q|^2 - u \cdot q, \quad A = \tfrac B2 (-y, x)$$

    The energy is not even in the momentum. The system runs back along the mirror image of its path under
    $(x, y) \to (x, -y)$; inputs are mirrored, too. Units: SI, or any consistent ones.

    Args:
        mass: $m$.
        charge: $e$.
        field: $B$.
        trap: $k$.

    The optional input `u` is the force on the charge (its charge times an electric field), shape (2,).

    Source: L. D. Landau and E. M. Lifshitz, *The Classical Theory of Fields*, sections 16 and 21.

    Example:
        ```python
        charge = eg.systems.ChargedParticle(field=2.0)
        sol = eg.solve(charge, eg.InitialValue(*charge.start()), dt=0.05, steps=200)
        ```
    """

    mass: Scalar = parameter(1.0, sign="positive")
    charge: Scalar = parameter(1.0)
    field: Scalar = parameter(1.0)
    trap: Scalar = parameter(0.1)

    def __call__(self, t: Scalar, q: Float[Array, "2"], p: Float[Array, "2"], u: Any) -> Scalar:
        moving = p - 0.5 * self.charge * self.field * jnp.stack([-q[1], q[0]])
        return jnp.sum(moving**2) / (2 * self.mass) + 0.5 * self.trap * jnp.sum(q**2) - work(self, q, u)

    def mirror(self, q: Float[Array, "2"]) -> Float[Array, "2"]:
        return jnp.stack([q[0], -q[1]])

    def mirror_input(self, u: Any) -> Any:
        return None if u is None else self.mirror(u)

    def start(self) -> tuple[Float[Array, "2"], Float[Array, "2"]]:
        """Return $(q, p)$ of a moving charge off the centre of the trap."""
        return jnp.asarray([1.0, 0.0], self.mass.dtype), jnp.asarray([0.0, 1.0], self.mass.dtype)
