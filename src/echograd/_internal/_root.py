"""Roots of small systems of equations, differentiable by the implicit function theorem."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.linalg
from jax.scipy.sparse.linalg import cg
from jaxtyping import Array, Float

Vector = Float[Array, " n"]

_ITERATIONS = 50

# Above this number of unknowns, definite systems are solved by conjugate gradients.
_DENSE = 1024


def root(
    f: Callable[[Vector], Vector],
    guess: Vector,
    *,
    halves: bool = False,
    terms: Vector | None = None,
    definite: bool = False,
) -> Vector:
    r"""Return $x$ with $f(x) = 0$ by Newton's method, to rounding; NaN where it fails.

    Integrators call it in every step, so failure is a NaN, which `solve` reports at the end of the run. Derivatives of
    any order and mode with respect to values that `f` closes over are those of the exact root. Convergence is judged
    relative to the largest unknowns and updates so far, so it does not depend on units.

    Args:
        f: the residual. With `halves` it has the units of `x`.
        guess: the starting point, in the units of the root; zero if nothing is known.
        halves: whether the two halves of `x` have different units.
        terms: numbers as large as the terms of the residual, in its units. If the terms cancel and the root is near
            zero, the iteration ends once the residual is below their rounding error.
        definite: whether the Jacobian must be symmetric and positive definite. The result is NaN if it is not. Large
            systems are then solved by conjugate gradients, without a matrix.
    """
    eps, real = jnp.finfo(guess.dtype).eps, guess.real.dtype
    noise = 0.0 if terms is None else 16 * eps * jax.lax.stop_gradient(jnp.max(jnp.abs(terms), initial=0)).astype(real)

    def linear_solve(linear: Callable[[Vector], Vector], y: Vector) -> tuple[Vector, Vector]:
        """Return the solution, and the units of its elements."""
        if definite and y.size > _DENSE:
            solve = lambda linear, y: cg(linear, y, tol=50 * float(eps), maxiter=y.size)[0]  # noqa: E731
            return jax.lax.custom_linear_solve(linear, y, solve, symmetric=True), jnp.ones_like(y)
        matrix = jax.vmap(linear, out_axes=1)(jnp.eye(y.size, dtype=y.dtype))
        if definite:
            return jax.scipy.linalg.solve(matrix, y, assume_a="pos"), jnp.ones_like(y)
        unit = _units(matrix, halves)
        scaled = matrix * (unit[None] / unit[:, None]).astype(matrix.dtype)
        return unit.astype(y.dtype) * jnp.linalg.solve(scaled, y / unit.astype(y.dtype)), unit

    def solve(f: Callable[[Vector], Vector], x: Vector) -> Vector:
        def unfinished(carry: Any) -> Any:
            _, _, size, before, left, i = carry
            # Once the updates no longer shrink, they are rounding errors.
            shrinking = (size < 0.5 * before) | (size > 1e3 * eps)
            return (i < _ITERATIONS) & (size > 0) & shrinking & ~(left <= noise)

        def update(carry: Any) -> Any:
            x, scale, size, _, _, i = carry
            residual = f(x)
            dx, unit = linear_solve(lambda v: jax.jvp(f, (x,), (v,))[1], residual)
            x = x - dx
            far, moved = (jnp.max(jnp.abs(y) / unit, initial=0) for y in (x, dx))
            scale = jnp.maximum(scale, jnp.maximum(far, moved))
            left = jnp.max(jnp.abs(residual), initial=0)
            return x, scale, moved / jnp.where(scale > 0, scale, 1), size, left, i + 1

        far = jnp.asarray(jnp.inf, real)
        start = (x, jnp.zeros((), real), far, far, far, 0)
        x, _, size, _, left, _ = jax.lax.while_loop(unfinished, update, start)
        return jnp.where((size <= jnp.sqrt(eps)) | (left <= noise), x, jnp.nan)

    def tangent_solve(g: Callable[[Vector], Vector], y: Vector) -> Vector:
        return linear_solve(g, y)[0]

    return jax.lax.custom_root(f, guess, solve, tangent_solve)


def _units(matrix: Float[Array, "n n"], halves: bool) -> Float[Array, " n"]:
    """Return units of the elements, powers of two, that balance the couplings between the two halves."""
    one = jnp.ones(len(matrix), matrix.real.dtype)
    if not halves:
        return one
    n = len(matrix) // 2
    there, back = (jnp.max(jnp.abs(x), initial=0) for x in (matrix[:n, n:], matrix[n:, :n]))
    coupled = (there > 0) & (back > 0) & jnp.isfinite(there) & jnp.isfinite(back)
    exponents = [jnp.frexp(jnp.where(coupled, x, 1))[1] for x in (there, back)]
    return jnp.concatenate([jnp.ldexp(one[:n], (exponents[0] - exponents[1]) // 2), one[n:]])
