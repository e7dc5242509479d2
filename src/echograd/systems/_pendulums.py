"""Pendulums: a coupled chain, a double pendulum, and a spherical pendulum."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._internal import _checks
from ._base import Lagrangian, Scalar, SeparableHamiltonian
from ._parameter import check_no_input, check_shapes, parameter, work


class PendulumChain(SeparableHamiltonian):
    r"""Pendulums on one axle, neighbours coupled by torsion springs; both ends are free.

    $$H = \sum_i \frac{p_i^2}{2 m l^2} + m g l\,(1 - \cos q_i) + \sum_i \frac\kappa2 (q_{i+1} - q_i)^2 - u \cdot q$$

    Angles $q$ in rad, zero when hanging down. Units: SI; by default every pendulum has 1 m and 1 kg.

    Args:
        mass: $m$ in kg, one number or shape (n,).
        length: $l$ in m, likewise.
        coupling: $\kappa$ in N m/rad, one number or shape (n - 1,).
        gravity: $g$ in m/s².

    The optional input `u` is the torque on every pendulum in N m, shape (n,).

    Source: A. C. Scott, Am. J. Phys. 37 (1969) 52.

    Example:
        ```python
        chain = eg.systems.PendulumChain(coupling=5.0)
        sol = eg.solve(chain, eg.InitialValue(*chain.start(n=16)), dt=0.01, steps=1000)
        ```
    """

    mass: Float[Array, "..."] = parameter(1.0, sign="positive")
    length: Float[Array, "..."] = parameter(1.0, sign="positive")
    coupling: Float[Array, "..."] = parameter(10.0)
    gravity: Scalar = parameter(9.81)

    def kinetic(self, t: Scalar, p: Float[Array, " n"]) -> Scalar:
        check_shapes(self, p.shape, "mass", "length")
        return 0.5 * jnp.sum(p**2 / (self.mass * self.length**2))

    def potential(self, t: Scalar, q: Float[Array, " n"], u: Any) -> Scalar:
        check_shapes(self, q.shape, "mass", "length", "gravity")
        check_shapes(self, (q.size - 1,), "coupling")
        twist = jnp.diff(q)
        weight = self.mass * self.gravity * self.length
        return jnp.sum(weight * (1 - jnp.cos(q))) + 0.5 * jnp.sum(self.coupling * twist**2) - work(self, q, u)

    def start(self, n: int = 16, angle: float = 1.0) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        """Return $(q, p)$ of `n` pendulums at rest. The first is lifted by `angle`, the others exponentially less."""
        _checks.integer("PendulumChain.start", "n", n, what="the number of pendulums")
        angle = _checks.number("PendulumChain.start", "angle", angle, dtype=self.mass.dtype)
        q = angle * jnp.exp(-jnp.arange(n, dtype=self.mass.dtype) / 3)
        return q, jnp.zeros_like(q)


class DoublePendulum(Lagrangian):
    r"""A pendulum hanging from a pendulum: small and chaotic.

    $$L = \tfrac12 (m_1 + m_2) l_1^2 v_1^2 + \tfrac12 m_2 l_2^2 v_2^2 + m_2 l_1 l_2 v_1 v_2 \cos(q_1 - q_2)
    + (m_1 + m_2) g l_1 \cos q_1 + m_2 g l_2 \cos q_2$$

    Angles $q$ in rad, both zero when hanging down. Units: SI.

    Args:
        mass: $(m_1, m_2)$ in kg.
        length: $(l_1, l_2)$ in m.
        gravity: $g$ in m/s².

    Source: L. D. Landau and E. M. Lifshitz, *Mechanics*, section 5, problem 1.

    Example:
        ```python
        pendulum = eg.systems.DoublePendulum()
        sol = eg.solve(pendulum, eg.InitialValue(*pendulum.start()), dt=0.01, steps=200)
        ```
    """

    mass: Float[Array, "2"] = parameter((1.0, 1.0), sign="positive")
    length: Float[Array, "2"] = parameter((1.0, 1.0), sign="positive")
    gravity: Scalar = parameter(9.81)

    def __call__(self, t: Scalar, q: Float[Array, "2"], v: Float[Array, "2"], u: Any) -> Scalar:
        check_no_input(self, u)
        check_shapes(self, (2,), "mass", "length", number=False)
        (_, lower), (l1, l2) = self.mass, self.length
        carried = jnp.array([1.0, 0.0], q.dtype) * lower + self.mass
        swing = 0.5 * jnp.sum(carried * (self.length * v) ** 2)
        together = lower * l1 * l2 * v[0] * v[1] * jnp.cos(q[0] - q[1])
        return swing + together + self.gravity * jnp.sum(carried * self.length * jnp.cos(q))

    def start(self) -> tuple[Float[Array, "2"], Float[Array, "2"]]:
        """Return $(q, p)$ with both pendulums lifted, at rest."""
        q = jnp.asarray([1.0, 1.5], self.mass.dtype)
        return q, jnp.zeros_like(q)


class SphericalPendulum(Lagrangian):
    r"""A pendulum that swings in any direction.

    $$L = \tfrac12 m l^2 (\dot\theta^2 + \sin^2\theta\,\dot\varphi^2) + m g l \cos\theta$$

    Coordinates $q = (\theta, \varphi)$ in rad, $\theta$ zero when hanging down. They are singular at $\theta = 0$
    and $\pi$, which a pendulum with angular momentum about the vertical never reaches. Units: SI.

    Args:
        mass: $m$ in kg.
        length: $l$ in m.
        gravity: $g$ in m/s².

    Source: L. D. Landau and E. M. Lifshitz, *Mechanics*, section 14, problem 1.

    Example:
        ```python
        pendulum = eg.systems.SphericalPendulum(length=2.0)
        sol = eg.solve(pendulum, eg.InitialValue(*pendulum.start()), dt=0.01, steps=200)
        ```
    """

    mass: Scalar = parameter(1.0, sign="positive")
    length: Scalar = parameter(1.0, sign="positive")
    gravity: Scalar = parameter(9.81)

    def __call__(self, t: Scalar, q: Float[Array, "2"], v: Float[Array, "2"], u: Any) -> Scalar:
        check_no_input(self, u)
        around = jnp.sin(q[0]) * v[1]
        swing = 0.5 * self.mass * self.length**2 * (v[0] ** 2 + around**2)
        return swing + self.mass * self.gravity * self.length * jnp.cos(q[0])

    def start(self) -> tuple[Float[Array, "2"], Float[Array, "2"]]:
        """Return $(q, p)$ at 1 rad, moving sideways at 2 rad/s."""
        check_shapes(self, (), "mass", "length", "gravity")
        q, v = (jnp.asarray(x, self.mass.dtype) for x in ([1.0, 0.0], [0.0, 2.0]))
        return q, jax.grad(self, 2)(jnp.zeros_like(self.mass), q, v, None)
