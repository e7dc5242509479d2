"""Gravitating bodies."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._internal import _checks
from ._base import Scalar, SeparableHamiltonian
from ._parameter import check_no_input, check_shapes, parameter


class Kepler(SeparableHamiltonian):
    r"""A body orbiting a fixed centre of attraction, in two or three dimensions.

    $$H = \frac{|p|^2}{2m} - \frac{k}{|q|}$$

    Units: any consistent ones; by default those in which a circle of radius 1 has the period $2\pi$.

    Args:
        mass: $m$.
        attraction: $k = G M m$.

    Source: L. D. Landau and E. M. Lifshitz, *Mechanics*, section 15.

    Example:
        ```python
        planet = eg.systems.Kepler()
        sol = eg.solve(planet, eg.InitialValue(*planet.start(eccentricity=0.3)), dt=0.01, steps=628)
        ```
    """

    mass: Scalar = parameter(1.0, sign="positive")
    attraction: Scalar = parameter(1.0)

    def kinetic(self, t: Scalar, p: Float[Array, " dimension"]) -> Scalar:
        return jnp.sum(p**2) / (2 * self.mass)

    def potential(self, t: Scalar, q: Float[Array, " dimension"], u: Any) -> Scalar:
        check_no_input(self, u)
        return -self.attraction / jnp.sqrt(jnp.sum(q**2))

    def start(self, eccentricity: float = 0.3) -> tuple[Float[Array, "2"], Float[Array, "2"]]:
        """Return $(q, p)$ at the point nearest to the centre, on a plane ellipse with semi-major axis 1."""
        check_shapes(self, (), "mass", "attraction")
        _checks.signed("Kepler.start", "attraction", self.attraction, "positive")
        why = "the eccentricity of an ellipse is at least 0 and below 1"
        e = _checks.number(
            "Kepler.start", "eccentricity", eccentricity, lambda e: (e >= 0) & (e < 1), why, dtype=self.mass.dtype
        )
        momentum = jnp.sqrt(self.attraction * self.mass * (1 + e) / (1 - e))
        zero = jnp.zeros_like(e)
        return jnp.stack([1 - e, zero]), jnp.stack([zero, momentum])


class NBody(SeparableHamiltonian):
    r"""Bodies under their own gravity, softened at short distances.

    $$H = \sum_i \frac{|p_i|^2}{2 m_i} - G \sum_{i<j} \frac{m_i m_j}{\sqrt{|q_i - q_j|^2 + \epsilon^2}}$$

    Coordinates have shape (n, dimension). All pairs are summed, $O(n^2)$. Units: any consistent ones; by default those
    of Hénon, $G$ and the total mass being 1.

    Args:
        mass: $m_i$, shape (n,); 64 equal ones of total mass 1 by default.
        gravitation: $G$.
        softening: $\epsilon$, a length.

    Source: S. J. Aarseth, *Gravitational N-Body Simulations* (2003), chapter 2; H. C. Plummer, MNRAS 71 (1911) 460.

    Example:
        ```python
        cluster = eg.systems.NBody(mass=jnp.ones(8) / 8)
        sol = eg.solve(cluster, eg.InitialValue(*cluster.start()), dt=0.01, steps=100)
        ```
    """

    mass: Float[Array, " n"] = parameter((1 / 64,) * 64, sign="positive")
    gravitation: Scalar = parameter(1.0)
    softening: Scalar = parameter(0.1, sign="not negative")

    def kinetic(self, t: Scalar, p: Float[Array, "n dimension"]) -> Scalar:
        check_shapes(self, p.shape[:1], "mass", number=False)
        return 0.5 * jnp.sum(jnp.sum(p**2, 1) / self.mass)

    def potential(self, t: Scalar, q: Float[Array, "n dimension"], u: Any) -> Scalar:
        check_no_input(self, u)
        # Bodies last, so that the innermost loop runs over n numbers and not over three.
        apart = q.T[:, :, None] - q.T[:, None, :]
        itself = jnp.eye(len(q), dtype=bool)
        # Masked before the root as well as after it: without softening, a body has distance zero from itself.
        square = jnp.where(itself, 1, jnp.sum(apart**2, 0) + self.softening**2)
        nearness = jnp.where(itself, 0, jax.lax.rsqrt(square))
        return -0.5 * self.gravitation * jnp.sum(self.mass * jnp.sum(nearness * self.mass[None], 1))

    def start(self, seed: int = 0, dimension: int = 3) -> tuple[Float[Array, "n d"], Float[Array, "n d"]]:
        """Return $(q, p)$ drawn from a Plummer sphere of scale length 1, with the local dispersion of velocities."""
        check_shapes(self, (self.mass.size,), "mass", number=False)
        check_shapes(self, (), "gravitation")
        _checks.signed("NBody.start", "gravitation", self.gravitation, "not negative")
        _checks.integer("NBody.start", "dimension", dimension, what="the number of dimensions")
        _checks.integer("NBody.start", "seed", seed, 0, what="the seed")
        n, dtype = self.mass.shape[0], self.mass.dtype
        radius, direction, velocity = jax.random.split(jax.random.key(seed), 3)
        enclosed = jax.random.uniform(radius, (n, 1), dtype, 0.05, 0.9)
        q = jax.random.normal(direction, (n, dimension), dtype)
        q = q / jnp.linalg.norm(q, axis=1, keepdims=True) / jnp.sqrt(enclosed ** (-2 / 3) - 1)
        depth = self.gravitation * jnp.sum(self.mass) / jnp.sqrt(1 + jnp.sum(q**2, 1, keepdims=True))
        v = jnp.sqrt(depth / 6) * jax.random.normal(velocity, (n, dimension), dtype)
        p = self.mass[:, None] * v
        drift = jnp.sum(p, 0) / jnp.sum(self.mass)
        return q, p - self.mass[:, None] * drift[None]
