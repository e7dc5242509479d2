"""Fields on a grid: sine-Gordon on a line, waves in a plane."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._internal import _checks
from .._internal._errors import ArgumentError
from ._base import Scalar, SeparableHamiltonian
from ._parameter import check_shapes, converted, parameter, work


def _length(owner: str) -> Any:
    return _checks.converter(_checks.constant, owner, "spacing", _checks.positive, "a length must be positive")


class SineGordon(SeparableHamiltonian):
    r"""The sine-Gordon field on a lattice with free ends.

    $$H = \sum_i \frac{p_i^2}{2a} + a\,\omega^2 (1 - \cos q_i) + \sum_i \frac{c^2}{2a} (q_{i+1} - q_i)^2 - u \cdot q$$

    It tends to $\ddot\phi = c^2 \phi'' - \omega^2 \sin\phi$ with the density of momentum $p_i / a$ as the spacing $a$
    tends to zero. Units: any consistent ones; by default those in which $c$ and $\omega$ are 1.

    Args:
        speed: $c$, one number or shape (n - 1,).
        frequency: $\omega$, one number or shape (n,).
        spacing: $a$, a length. A constant number, not trainable.

    The optional input `u` is the force on every site, shape (n,).

    Source: J. Rubinstein, J. Math. Phys. 11 (1970) 258.

    Example:
        ```python
        field = eg.systems.SineGordon()
        sol = eg.solve(field, eg.InitialValue(*field.start(n=64, velocity=0.5)), dt=0.05, steps=400)
        ```
    """

    speed: Float[Array, "..."] = parameter(1.0)
    frequency: Float[Array, "..."] = parameter(1.0)
    spacing: float = eqx.field(static=True, default=0.25, converter=_length("SineGordon"))

    def kinetic(self, t: Scalar, p: Float[Array, " n"]) -> Scalar:
        return jnp.sum(p**2) / (2 * self.spacing)

    def potential(self, t: Scalar, q: Float[Array, " n"], u: Any) -> Scalar:
        check_shapes(self, (q.size - 1,), "speed")
        check_shapes(self, q.shape, "frequency")
        slope = self.speed * jnp.diff(q)
        well = self.frequency**2 * (1 - jnp.cos(q))
        return jnp.sum(slope**2) / (2 * self.spacing) + self.spacing * jnp.sum(well) - work(self, q, u)

    def start(self, n: int = 64, velocity: float = 0.5) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        r"""Return $(q, p)$ of a kink at a quarter of the line, moving at `velocity` (a fraction of $c$).

        It is the kink of the continuum, $4 \arctan e^{\gamma (x - x_0 - vt)}$, with $c$ and $\omega$ at the middle.
        """
        _checks.integer("SineGordon.start", "n", n, 2, what="the number of sites")
        check_shapes(self, (n - 1,), "speed")
        check_shapes(self, (n,), "frequency")
        why = "a kink is slower than waves, so it must be between -1 and 1"
        velocity = _checks.number(
            "SineGordon.start", "velocity", velocity, lambda v: abs(v) < 1, why, dtype=self.speed.dtype
        )
        c = self.speed if self.speed.ndim == 0 else self.speed[n // 2]
        frequency = self.frequency if self.frequency.ndim == 0 else self.frequency[n // 2]
        x = self.spacing * (jnp.arange(n, dtype=self.speed.dtype) - n / 4)
        steepness = frequency / (c * jnp.sqrt(1 - jnp.asarray(velocity, x.dtype) ** 2))
        q = 4 * jnp.arctan(jnp.exp(steepness * x))
        return q, -self.spacing * velocity * c * steepness * 2 / jnp.cosh(steepness * x)


class WaveField(SeparableHamiltonian):
    r"""Scalar waves in a plane medium between fixed walls, on a square grid.

    $$H = \sum_{ij} \tfrac12 c_{ij}^2 p_{ij}^2 + \frac{1}{2 a^2} \Bigl[\sum (q_{i+1,j} - q_{ij})^2
    + \sum (q_{i,j+1} - q_{ij})^2\Bigr] - \sum u_{ij} q_{ij}$$

    The equation of motion is $\ddot q = c^2 (\nabla^2 q + u)$, with $q = 0$ on the walls one spacing outside the grid.
    Units: any consistent ones.

    Args:
        speed: $c$ in every cell, shape (rows, columns); 1 on 256 x 256 by default.
        spacing: $a$, a length. A constant number, not trainable.

    The optional input `u` is the source in every cell, shape (rows, columns).

    Source: R. Courant, K. Friedrichs, H. Lewy, Math. Ann. 100 (1928) 32.

    Example:
        ```python
        pond = eg.systems.WaveField(speed=jnp.ones((32, 32)))
        sol = eg.solve(pond, eg.InitialValue(*pond.start()), dt=0.5, steps=100)
        ```
    """

    speed: Float[Array, "rows columns"] = eqx.field(
        default_factory=lambda: jnp.ones((256, 256)), converter=converted, metadata={"sign": "any"}
    )
    spacing: float = eqx.field(static=True, default=1.0, converter=_length("WaveField"))

    def __check_init__(self) -> None:
        super().__check_init__()
        if self.speed.ndim != 2 or not self.speed.size:
            raise ArgumentError(
                f"WaveField: speed has shape {self.speed.shape}; give one number per cell, shape (rows, columns)."
            )

    def kinetic(self, t: Scalar, p: Float[Array, "rows columns"]) -> Scalar:
        check_shapes(self, p.shape, "speed", number=False)
        return 0.5 * jnp.sum((self.speed * p) ** 2)

    def potential(self, t: Scalar, q: Float[Array, "rows columns"], u: Any) -> Scalar:
        walled = jnp.pad(q, 1)
        slopes = jnp.sum(jnp.diff(walled, axis=0) ** 2) + jnp.sum(jnp.diff(walled, axis=1) ** 2)
        return slopes / (2 * self.spacing**2) - work(self, q, u)

    def start(self) -> tuple[Float[Array, "rows columns"], Float[Array, "rows columns"]]:
        """Return $(q, p)$ of a bump in the middle, at rest: it spreads as a ring."""
        rows, columns = self.speed.shape
        x, y = (jnp.arange(n, dtype=self.speed.dtype) / max(n - 1, 1) - 0.5 for n in (rows, columns))
        q = jnp.exp(-50 * (x[:, None] ** 2 + y[None] ** 2))
        return q, jnp.zeros_like(q)
