"""The chain of Fermi, Pasta, Ulam and Tsingou."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._internal import _checks
from ._base import Scalar, SeparableHamiltonian
from ._parameter import check_shapes, parameter, work


class FPUTChain(SeparableHamiltonian):
    r"""The chain of Fermi, Pasta, Ulam and Tsingou: masses between two walls, on weakly nonlinear springs.

    $$H = \sum_{i=1}^n \frac{p_i^2}{2m}
    + \sum_{i=0}^n \Bigl[\frac k2 r_i^2 + \frac\alpha3 r_i^3 + \frac\beta4 r_i^4\Bigr] - u \cdot q$$

    with the stretches $r_i = q_{i+1} - q_i$ and the walls $q_0 = q_{n+1} = 0$.

    Units: any consistent ones; by default those in which mass and stiffness are 1.

    Args:
        mass: $m$, one number or shape (n,).
        stiffness: $k$, one number or shape (n + 1,).
        alpha: the cubic term, likewise.
        beta: the quartic term, likewise.

    The optional input `u` is the force on every mass, shape (n,).

    Source: E. Fermi, J. Pasta, S. Ulam (with M. Tsingou), Los Alamos report LA-1940 (1955).

    Example:
        ```python
        chain = eg.systems.FPUTChain()
        sol = eg.solve(chain, eg.InitialValue(*chain.start(n=32)), dt=0.1, steps=1000)
        ```
    """

    mass: Float[Array, "..."] = parameter(1.0, sign="positive")
    stiffness: Float[Array, "..."] = parameter(1.0)
    alpha: Float[Array, "..."] = parameter(0.25)
    beta: Float[Array, "..."] = parameter(0.0)

    def kinetic(self, t: Scalar, p: Float[Array, " n"]) -> Scalar:
        check_shapes(self, p.shape, "mass")
        return 0.5 * jnp.sum(p**2 / self.mass)

    def potential(self, t: Scalar, q: Float[Array, " n"], u: Any) -> Scalar:
        check_shapes(self, (q.size + 1,), "stiffness", "alpha", "beta")
        # Equal to differences of the padded chain, but the derivative of this form needs no padding.
        wall = jnp.zeros(1, q.dtype)
        r = jnp.concatenate([q, wall]) - jnp.concatenate([wall, q])
        return jnp.sum(self.stiffness * r**2 / 2 + self.alpha * r**3 / 3 + self.beta * r**4 / 4) - work(self, q, u)

    def start(self, n: int = 32, amplitude: float = 1.0) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        """Return $(q, p)$ of `n` masses at rest in the shape of the slowest mode, as in the original experiment."""
        _checks.integer("FPUTChain.start", "n", n, what="the number of masses")
        amplitude = _checks.number("FPUTChain.start", "amplitude", amplitude, dtype=self.mass.dtype)
        q = amplitude * jnp.sin(jnp.pi * jnp.arange(1, n + 1, dtype=self.mass.dtype) / (n + 1))
        return q, jnp.zeros_like(q)
