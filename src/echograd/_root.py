"""Roots of small systems of equations, differentiable by the implicit function theorem."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Vector = Float[Array, " n"]

_ITERATIONS = 50


def root(f: Callable[[Vector], Vector], guess: Vector, *, halves: bool = False) -> Vector:
    r"""Return $x$ with $f(x) = 0$ by Newton's method with a dense Jacobian, to rounding; NaN where it fails.

    It stands inside the steps of integrators, where an error would have to be carried through every loop; a NaN is
    caught at the end of the run. Derivatives of any order and mode with respect to what `f` closes over are those of
    the exact root. What has converged is judged relative to how large unknowns and updates have been, so it does not
    depend on their units.

    Args:
        f: the residual, a function of a vector of shape (n,), in the same units as `x` where there are `halves`.
        guess: where to start, shape (n,); in the units of the root, so zero if nothing is known.
        halves: whether the first half of `x` and the second have units of their own.

    Returns:
        The root, shape (n,).
    """

    def parts(x: Vector) -> tuple[Vector, ...]:
        return tuple(jnp.split(x, 2)) if halves else (x,)

    def sizes(x: Vector) -> Float[Array, " parts"]:
        return jnp.stack([jnp.max(jnp.abs(part), initial=0) for part in parts(x)])

    def linear_solve(matrix: Float[Array, "n n"], y: Vector) -> Vector:
        unit = jnp.concatenate(
            [jnp.full(part.shape, s) for part, s in zip(parts(y), _units(matrix, halves), strict=True)]
        )
        return unit * jnp.linalg.solve(matrix * unit[None] / unit[:, None], y / unit)

    def solve(f: Callable[[Vector], Vector], x: Vector) -> Vector:
        eps, real = jnp.finfo(x.dtype).eps, x.real.dtype

        def unfinished(carry: Any) -> Any:
            _, _, size, before, i = carry
            # Once the updates no longer shrink, what is left of them is rounding.
            return (i < _ITERATIONS) & (size > 0) & ((size < 0.5 * before) | (size > 1e3 * eps))

        def update(carry: Any) -> Any:
            x, scale, size, _, i = carry
            dx = linear_solve(_jacobian(f, x), f(x))
            x = x - dx
            scale = jnp.maximum(scale, jnp.maximum(sizes(x), sizes(dx)))
            return x, scale, jnp.max(sizes(dx) / jnp.where(scale > 0, scale, 1)), size, i + 1

        start = (x, sizes(x), jnp.asarray(jnp.inf, real), jnp.asarray(jnp.inf, real), 0)
        x, _, size, _, _ = jax.lax.while_loop(unfinished, update, start)
        return jnp.where(size <= jnp.sqrt(eps), x, jnp.nan)

    def tangent_solve(g: Callable[[Vector], Vector], y: Vector) -> Vector:
        return linear_solve(_jacobian(g, y), y)

    return jax.lax.custom_root(f, guess, solve, tangent_solve)


def _units(matrix: Float[Array, "n n"], halves: bool) -> tuple[Array, ...]:
    """Return units of the parts of a vector, powers of two, in which the couplings between them are alike."""
    one = jnp.ones((), matrix.real.dtype)
    if not halves:
        return (one,)
    n = len(matrix) // 2
    there, back = (jnp.max(jnp.abs(x), initial=0) for x in (matrix[:n, n:], matrix[n:, :n]))
    coupled = (there > 0) & (back > 0) & jnp.isfinite(there) & jnp.isfinite(back)
    exponents = [jnp.frexp(jnp.where(coupled, x, 1))[1] for x in (there, back)]
    return jnp.ldexp(one, (exponents[0] - exponents[1]) // 2), one


def _jacobian(f: Callable[[Vector], Vector], x: Vector) -> Float[Array, "n n"]:
    return jax.jacfwd(f, holomorphic=jnp.iscomplexobj(x))(x)
