"""Lossless circuits."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._internal import _checks
from ._base import Scalar, SeparableHamiltonian
from ._parameter import check_shapes, parameter, work


class LCLadder(SeparableHamiltonian):
    r"""A transmission line: nodes with capacitors to ground, and coils between neighbours.

    $$H = \sum_{i=1}^n \frac{Q_i^2}{2 C_i} + \sum_{i=1}^{n-1} \frac{(\Phi_{i+1} - \Phi_i)^2}{2 L_i} - u\,\Phi_1$$

    Coordinates are the node fluxes $\Phi$ (time integrals of the voltages), momenta the charges $Q$ on the capacitors.
    Units: microfarad, microhenry, microsecond; then microweber, microcoulomb, volt, ampere and microjoule.

    Args:
        capacitance: $C$, one number or shape (n,).
        inductance: $L$, one number or shape (n - 1,).

    The optional input `u` is the current fed into the first node, a scalar.

    Source: U. Vool and M. Devoret, Int. J. Circuit Theory Appl. 45 (2017) 897, section 2.

    Example:
        ```python
        line = eg.systems.LCLadder(capacitance=0.01)
        sol = eg.solve(line, eg.InitialValue(*line.start(n=32)), dt=0.02, steps=500)
        voltage = sol.p / line.capacitance
        ```
    """

    capacitance: Float[Array, "..."] = parameter(1.0, sign="positive")
    inductance: Float[Array, "..."] = parameter(1.0, sign="positive")

    def kinetic(self, t: Scalar, p: Float[Array, " n"]) -> Scalar:
        check_shapes(self, p.shape, "capacitance")
        return 0.5 * jnp.sum(p**2 / self.capacitance)

    def potential(self, t: Scalar, q: Float[Array, " n"], u: Any) -> Scalar:
        check_shapes(self, (q.size - 1,), "inductance")
        return 0.5 * jnp.sum(jnp.diff(q) ** 2 / self.inductance) - work(self, q[0], u)

    def start(self, n: int = 16) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        """Return $(q, p)$ of `n` nodes, the first few of them charged."""
        _checks.integer("LCLadder.start", "n", n, 2, what="the number of nodes")
        charge = jnp.exp(-((jnp.arange(n, dtype=self.capacitance.dtype) / 3) ** 2))
        return jnp.zeros_like(charge), charge
