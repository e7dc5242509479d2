"""Roots of small systems of equations, differentiable by the implicit function theorem."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Vector = Float[Array, " n"]

_ITERATIONS = 50


def root(f: Callable[[Vector], Vector], guess: Vector) -> Vector:
    r"""Return $x$ with $f(x) = 0$ by Newton's method with a dense Jacobian, to rounding; NaN where it fails.

    It stands inside the steps of integrators, where an error would have to be carried through every loop; a NaN is
    caught at the end of the run. Derivatives of any order and mode with respect to what `f` closes over are those of
    the exact root.

    Args:
        f: the residual, a function of a vector of shape (n,).
        guess: where to start, shape (n,).

    Returns:
        The root, shape (n,).
    """

    def solve(f: Callable[[Vector], Vector], x: Vector) -> Vector:
        eps, real = jnp.finfo(x.dtype).eps, x.real.dtype

        def unfinished(carry: Any) -> Any:
            x, size, before, i = carry
            # Once the updates no longer shrink, what is left of them is rounding.
            shrinking = (size < 0.5 * before) | (size > 1e3 * eps * (1 + jnp.max(jnp.abs(x))))
            return (i < _ITERATIONS) & (size > 0) & shrinking

        def update(carry: Any) -> Any:
            x, size, _, i = carry
            dx = jnp.linalg.solve(_jacobian(f, x), f(x))
            return x - dx, jnp.max(jnp.abs(dx)), size, i + 1

        start = (x, jnp.asarray(jnp.inf, real), jnp.asarray(jnp.inf, real), 0)
        x, size, _, _ = jax.lax.while_loop(unfinished, update, start)
        return jnp.where(size <= jnp.sqrt(eps) * (1 + jnp.max(jnp.abs(x))), x, jnp.nan)

    def tangent_solve(g: Callable[[Vector], Vector], y: Vector) -> Vector:
        return jnp.linalg.solve(_jacobian(g, y), y)

    return jax.lax.custom_root(f, guess, solve, tangent_solve)


def _jacobian(f: Callable[[Vector], Vector], x: Vector) -> Float[Array, "n n"]:
    return jax.jacfwd(f, holomorphic=jnp.iscomplexobj(x))(x)
