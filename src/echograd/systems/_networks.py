"""Networks of oscillators with all-to-all coupling."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._internal._errors import ArgumentError
from ._base import Scalar, SeparableHamiltonian
from ._parameter import check_shapes, parameter, work

_RING = tuple(tuple(0.2 if (i - j) % 8 in (1, 7) else 0.0 for j in range(8)) for i in range(8))


class OscillatorNetwork(SeparableHamiltonian):
    r"""Harmonic oscillators on springs, with a spring between each pair: the toy model of the RHEL paper.

    $$H = \sum_i \frac{p_i^2}{2 m_i} + \tfrac12 k_i q_i^2 + \sum_{i<j} \tfrac12 k_{ij} (q_i - q_j)^2 - u\,q_1$$

    By default six of them. Units: any consistent ones.

    Args:
        mass: $m_i$, shape (n,).
        stiffness: $k_i$, shape (n,).
        bonds: $k_{ij}$ for the pairs $i < j$ in row order, shape (n (n - 1) / 2,).

    Raises:
        ArgumentError: unless there is one bond for each pair.

    The optional input `u` is the force on the first oscillator, a scalar.

    Source: G. Pourcel and M. Ernoult, arXiv 2506.05259, the toy model.

    Example:
        ```python
        toy = eg.systems.OscillatorNetwork()
        sol = eg.solve(toy, eg.InitialValue(*toy.start()), inputs=jnp.sin(0.1 * jnp.arange(200.0)), dt=0.1)
        output = sol.q[:, 3]
        ```
    """

    mass: Float[Array, " n"] = parameter((1.0, 1.2, 0.8, 1.0, 1.5, 0.6), sign="positive")
    stiffness: Float[Array, " n"] = parameter((1.0, 0.7, 1.4, 0.9, 1.2, 1.1))
    bonds: Float[Array, " pairs"] = parameter((0.3,) * 15)

    def __check_init__(self) -> None:
        super().__check_init__()
        check_shapes(self, (self.mass.size,), "mass", number=False)
        n = self.mass.size
        if self.bonds.shape != (n * (n - 1) // 2,):
            raise ArgumentError(
                f"OscillatorNetwork: {n} masses have {n * (n - 1) // 2} pairs, but bonds has shape {self.bonds.shape}. "
                "Give one bond for each pair i < j."
            )

    def kinetic(self, t: Scalar, p: Float[Array, " n"]) -> Scalar:
        check_shapes(self, p.shape, "mass")
        return 0.5 * jnp.sum(p**2 / self.mass)

    def potential(self, t: Scalar, q: Float[Array, " n"], u: Any) -> Scalar:
        check_shapes(self, q.shape, "stiffness")
        one, other = np.triu_indices(q.size, 1)
        springs = jnp.sum(self.stiffness * q**2) + jnp.sum(self.bonds * (q[one] - q[other]) ** 2)
        return 0.5 * springs - work(self, q[0], u)

    def start(self) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        """Return $(q, p)$ with the second oscillator displaced, all at rest."""
        q = jnp.zeros_like(self.mass).at[1].set(1.0)
        return q, jnp.zeros_like(q)


class DuffingNetwork(SeparableHamiltonian):
    r"""Coupled Duffing oscillators: springs that harden with elongation.

    $$H = \sum_i \frac{p_i^2}{2 m_i} + \tfrac12 k_i q_i^2 + \tfrac14 \gamma_i q_i^4
    + \tfrac14 \sum_{ij} c_{ij} (q_i - q_j)^2 - u \cdot q$$

    Only the symmetric part of the couplings matters. Units: any consistent ones.

    Args:
        mass: $m_i$, one number or shape (n,).
        stiffness: $k_i$, likewise; negative for a double well.
        hardening: $\gamma_i$, likewise.
        coupling: $c_{ij}$, shape (n, n); eight oscillators on a ring by default.

    Raises:
        ArgumentError: if the coupling is not a square matrix.

    The optional input `u` is the force on every oscillator, shape (n,).

    Source: G. Duffing, *Erzwungene Schwingungen bei veränderlicher Eigenfrequenz* (1918).

    Example:
        ```python
        network = eg.systems.DuffingNetwork(coupling=0.1 * jnp.ones((4, 4)))
        sol = eg.solve(network, eg.InitialValue(*network.start()), dt=0.1, steps=100)
        ```
    """

    mass: Float[Array, "..."] = parameter(1.0, sign="positive")
    stiffness: Float[Array, "..."] = parameter(1.0)
    hardening: Float[Array, "..."] = parameter(1.0)
    coupling: Float[Array, "n n"] = parameter(_RING)

    def __check_init__(self) -> None:
        super().__check_init__()
        shape = self.coupling.shape
        if len(shape) != 2 or shape[0] != shape[1] or not shape[0]:
            raise ArgumentError(f"DuffingNetwork: coupling has shape {shape}; give a square matrix.")

    def kinetic(self, t: Scalar, p: Float[Array, " n"]) -> Scalar:
        check_shapes(self, p.shape, "mass")
        return 0.5 * jnp.sum(p**2 / self.mass)

    def potential(self, t: Scalar, q: Float[Array, " n"], u: Any) -> Scalar:
        check_shapes(self, q.shape, "stiffness", "hardening")
        check_shapes(self, 2 * q.shape, "coupling", number=False)
        springs = jnp.sum(q**2 * (self.stiffness / 2 + self.hardening / 4 * q**2))
        apart = q[:, None] - q[None, :]
        return springs + 0.25 * jnp.sum(self.coupling * apart**2) - work(self, q, u)

    def start(self) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        """Return $(q, p)$ with different displacements, at rest."""
        q = jnp.cos(jnp.arange(len(self.coupling), dtype=self.coupling.dtype))
        return q, jnp.zeros_like(q)
