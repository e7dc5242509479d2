"""Finite nudges: runs at several strengths, combined with fixed weights."""

import math
from typing import Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .. import _tree
from ._base import AbstractNudge, Pushed

Strength = float | Float[Array, ""] | Literal["auto"]


def _check_strength(name: str, beta: Any) -> Any:
    if isinstance(beta, str):
        if beta != "auto":
            raise ValueError(f'{name}: beta is a number or "auto", and got {beta!r}.')
        return beta
    why = f"{name}: beta must be finite and not zero: the estimate divides by it. Infinitesimal() is the limit of zero."
    if isinstance(beta, int | float):
        # A Python number stays one, so that a model that holds this nudge does not train its strength.
        if beta == 0 or not math.isfinite(beta):
            raise ValueError(f"{why} Got {beta!r}.")
        return float(beta)
    beta = jnp.asarray(beta)
    if beta.shape != ():
        raise ValueError(f"{name}: beta is one number, and got an array of shape {beta.shape}.")
    return eqx.error_if(beta, (beta == 0) | ~jnp.isfinite(beta), why)


class AbstractFiniteNudge(AbstractNudge):
    r"""Runs at several strengths of the nudge, combined with weights.

    With strengths $\beta n_i$ and weights $w_i$,

    $$\frac{d f}{d\beta} \approx \frac1\beta \sum_i w_i f(\beta n_i), \quad \sum_i w_i = 0, \ \sum_i w_i n_i = 1.$$

    All members of the ensemble advance together, and their readings are combined at every step, so what is
    subtracted are neighbouring numbers and not long sums.
    """

    beta: eqx.AbstractVar[Any]
    nodes: eqx.AbstractClassVar[tuple[float, ...]]
    weights: eqx.AbstractClassVar[tuple[float, ...]]
    # The error falls as β to this power.
    power: eqx.AbstractClassVar[int]

    def strength(self, z: PyTree, load: Float[Array, ""], steps: int) -> Float[Array, ""]:
        dtype = jax.tree.leaves(z)[0].dtype
        if not isinstance(self.beta, str):
            return jnp.asarray(self.beta).astype(dtype)
        # Balance the truncation error δ^power against the rounding error noise/δ, δ the relative size of the response.
        noise = float(jnp.finfo(dtype).eps) * max(steps, 1) ** 0.5
        delta = noise ** (1 / (self.power + 1))
        size = _tree.norm(z)
        size = jnp.where(size > 0, size, jnp.ones_like(size))
        # Without any nudge every strength gives the same zero.
        return jnp.where(load > 0, delta * size / jnp.where(load > 0, load, 1), 1).astype(dtype)

    def start(self, z: PyTree) -> PyTree:
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (len(self.nodes), *x.shape)), z)

    def advance(self, beta: Float[Array, ""], pushed: Pushed, ensemble: PyTree) -> tuple[PyTree, PyTree]:
        strengths = beta * jnp.asarray(self.nodes, beta.dtype)
        ensemble, readings = jax.vmap(pushed)(strengths, ensemble)
        return ensemble, self._combine(beta, readings)

    def response(self, beta: Float[Array, ""], ensemble: PyTree) -> PyTree:
        return self._combine(beta, ensemble)

    def retraced(self, ensemble: PyTree) -> tuple[PyTree, PyTree]:
        if 0.0 in self.nodes:
            free = jax.tree.map(lambda x: x[self.nodes.index(0.0)], ensemble)
            return free, free
        # Symmetric members average to the un-nudged state up to O(β²), less than they are apart.
        return jax.tree.map(lambda x: jnp.mean(x, 0), ensemble), jax.tree.map(lambda x: x[0], ensemble)

    def check(self, x: Any, beta: Float[Array, ""], ensemble: PyTree, load: Float[Array, ""], steps: int) -> Any:
        centre, _ = self.retraced(ensemble)
        noise = 4 * float(jnp.finfo(beta.dtype).eps) * max(steps, 1) ** 0.5
        spread = _tree.max_abs(jax.tree.map(lambda a, b: a - b[None], ensemble, centre))
        lost = (load > 0) & (spread < noise * _tree.max_abs(centre))
        return eqx.error_if(
            x,
            lost,
            f"{type(self).__name__}: the nudge is lost in rounding. The nudged echoes differ by less than four times "
            "the rounding error that the steps pile up, so their difference carries no gradient. Raise beta, pass "
            'beta="auto" (which scales it to the cotangents), use float64, or use Infinitesimal().',
        )

    def _combine(self, beta: Float[Array, ""], members: PyTree) -> PyTree:
        def combine(x: Array) -> Array:
            weights = jnp.asarray(self.weights, x.dtype) / beta.astype(x.dtype)
            return jnp.tensordot(weights, x, 1)

        return jax.tree.map(combine, members)


class Symmetric(AbstractFiniteNudge):
    r"""Two echoes at $\pm\beta$: error $O(\beta^2)$; exact at any $\beta$ for linear systems.

    Args:
        beta: strength, in units of coordinate × momentum over cost; or `"auto"`, which scales it to the cotangents and
            the dtype so that truncation and rounding are balanced.

    Raises:
        ValueError: if `beta` is another string or not a scalar.
        RuntimeError: (at run time) if the nudge is zero, not finite, or lost in rounding.

    Source: A. Laborieux et al. (2021) for equilibrium propagation; RHEL, arXiv 2506.05259, eq. 7.

    Example:
        ```python
        eg.solve(system, boundary, dt=0.01, steps=100, gradient=eg.Echo(eg.Symmetric(1e-3)))
        ```
    """

    beta: Any
    nodes: ClassVar[tuple[float, ...]] = (1.0, -1.0)
    weights: ClassVar[tuple[float, ...]] = (0.5, -0.5)
    power: ClassVar[int] = 2

    def __init__(self, beta: Strength = "auto") -> None:
        self.beta = _check_strength("Symmetric", beta)


class OneSided(AbstractFiniteNudge):
    r"""One echo at $\beta$ and one without nudge: error $O(\beta)$.

    Args:
        beta: strength, or `"auto"` (see `Symmetric`).

    Raises:
        ValueError: if `beta` is another string or not a scalar.
        RuntimeError: (at run time) if the nudge is zero, not finite, or lost in rounding.

    Source: B. Scellier and Y. Bengio (2017), eq. 9, for equilibrium propagation.

    Example:
        ```python
        eg.solve(system, boundary, dt=0.01, steps=100, gradient=eg.Echo(eg.OneSided(1e-3)))
        ```
    """

    beta: Any
    nodes: ClassVar[tuple[float, ...]] = (1.0, 0.0)
    weights: ClassVar[tuple[float, ...]] = (1.0, -1.0)
    power: ClassVar[int] = 1

    def __init__(self, beta: Strength = "auto") -> None:
        self.beta = _check_strength("OneSided", beta)
