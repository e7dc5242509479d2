"""The infinitesimal nudge: the tangent of the echo, exact to rounding."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .. import _tree
from ._base import AbstractNudge, Pushed


class Infinitesimal(AbstractNudge):
    r"""Carry the tangent $d z/d\beta$ along with the echo: no finite nudge, one pass, exact to rounding.

    It is what `Symmetric(beta)` tends to for $\beta \to 0$ without the loss of digits: a simulated machine can be
    nudged infinitesimally, a physical one cannot.

    Example:
        ```python
        eg.solve(system, boundary, dt=0.01, steps=100, gradient=eg.Echo(eg.Infinitesimal()))
        ```
    """

    def strength(self, z: PyTree, load: Float[Array, ""], steps: int) -> Float[Array, ""]:
        return jnp.zeros((), jax.tree.leaves(z)[0].dtype)

    def start(self, z: PyTree) -> PyTree:
        return z, _tree.zeros_like(z)

    def advance(self, beta: Float[Array, ""], pushed: Pushed, ensemble: PyTree) -> tuple[PyTree, PyTree]:
        z, dz = ensemble
        (z, _), (dz, reading) = jax.jvp(pushed, (jnp.zeros_like(beta), z), (jnp.ones_like(beta), dz))
        return (z, dz), reading

    def response(self, beta: Float[Array, ""], ensemble: PyTree) -> PyTree:
        return ensemble[1]

    def retraced(self, ensemble: PyTree) -> tuple[PyTree, PyTree]:
        return ensemble[0], ensemble[0]

    def check(self, x: Any, beta: Float[Array, ""], ensemble: PyTree, load: Float[Array, ""], steps: int) -> Any:
        return x
