"""The infinitesimal nudge: the tangent of the echo, exact to rounding."""

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from .._internal import _tree
from ._base import AbstractNudge, Pushed, Scalar


class Infinitesimal(AbstractNudge):
    r"""Carry the tangent $d z/d\beta$ along with the echo: no finite nudge, one pass, exact to rounding.

    It is the limit of `Symmetric(beta)` for $\beta \to 0$, without the loss of digits. Only a simulated machine can be
    nudged infinitesimally, not a physical one.

    Example:
        ```python
        eg.solve(system, boundary, dt=0.01, steps=100, gradient=eg.Echo(eg.Infinitesimal()))
        ```
    """

    def strength(self, z: PyTree, load: Scalar, steps: int) -> Scalar:
        """Return the unit of tangents: the power of two that makes them about as large as the state.

        Without a unit, tangents of small cotangents would underflow.
        """
        # Clipped, so that products with numbers of the state do not overflow or underflow.
        info = jnp.finfo(load.dtype)
        sound = (load > 0) & jnp.isfinite(load)
        _, exponent = jnp.frexp(jnp.where(sound, load, 1))
        exponent = jnp.clip(-exponent, info.minexp + info.nmant, info.maxexp - info.nmant)
        return jnp.ldexp(jnp.ones_like(load), exponent).astype(jax.tree.leaves(z)[0].dtype)

    def start(self, z: PyTree) -> PyTree:
        return z, _tree.zeros_like(z)

    def advance(self, beta: Scalar, pushed: Pushed, ensemble: PyTree) -> tuple[PyTree, PyTree]:
        z, dz = ensemble
        (z, _), (dz, reading) = jax.jvp(pushed, (jnp.zeros_like(beta), z), (beta, dz))
        return (z, dz), _in_units(beta, reading)

    def response(self, beta: Scalar, ensemble: PyTree) -> PyTree:
        return _in_units(beta, ensemble[1])

    def retraced(self, ensemble: PyTree) -> tuple[PyTree, PyTree]:
        return ensemble[0], ensemble[0]

    def put_back(self, ensemble: PyTree, z: PyTree) -> PyTree:
        """Return the ensemble with its un-nudged state replaced."""
        return z, ensemble[1]


def _in_units(beta: Scalar, x: PyTree) -> PyTree:
    """Return `x` / β, which is exact: β is a power of two."""
    return jax.tree.map(lambda x: x * (1 / beta).astype(x.dtype), x)
