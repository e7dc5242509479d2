"""Newton's method for states of rest, for small systems.

It does not use `_internal._root`, which has neither bounds nor damped steps.
"""

from typing import Any

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from .._internal import _tree
from ._base import AbstractRelaxation
from ._descent import check_limits
from ._static_problem import StaticProblem

_HALVINGS = 30


class Newton(AbstractRelaxation):
    r"""Newton's method with a dense matrix and halving of steps that leave a larger force.

    $$E''_{FF}\, d_F = -\partial E/\partial s_F, \quad s \leftarrow {\rm clip}(s + 2^{-m} d)$$

    on the coordinates $F$ that no bound holds. It takes few steps; the cost of each grows as the cube of the number of
    coordinates. It finds any stationary state, a saddle as well as a minimum. The gradients hold at both, but a
    physical machine rests in minima only. The linear response is a dense solve; the stiffness may be indefinite or
    not symmetric.

    Args:
        tolerance: largest force accepted at rest (see `Relaxation`).
        max_steps: largest number of steps; `Backprop()` takes all of them.

    Raises:
        ArgumentError: if a number is out of range.

    Source: D. Bertsekas, SIAM J. Control Optim. 20 (1982) 221, for bounds; J. Nocedal and S. Wright, *Numerical
    Optimization*, 2nd ed. (2006), algorithm 11.4.

    Example:
        ```python
        eg.equilibrium(lambda s, u: jnp.sum(s**4 + s**2 - s), jnp.zeros(3), solver=eg.Newton())
        ```
    """

    tolerance: float | None = eqx.field(static=True)
    max_steps: int = eqx.field(static=True)

    def __init__(self, *, tolerance: float | None = None, max_steps: int = 50) -> None:
        check_limits("Newton", tolerance, max_steps)
        self.tolerance, self.max_steps = tolerance, max_steps

    def start(self, problem: StaticProblem, s: PyTree, force: PyTree) -> PyTree:
        return None

    def move(self, problem: StaticProblem, s: PyTree, force: PyTree, memory: PyTree) -> tuple[PyTree, PyTree]:
        flat, unravel = jax.flatten_util.ravel_pytree(s)
        free = _tree.flat(problem.free(s, force))

        def pulled(x: Array) -> Array:
            return _tree.flat(problem.force(unravel(x)))

        left = jnp.where(free, _tree.flat(force), 0)
        d = jnp.linalg.solve(-_on(free, _matrix(lambda v: jax.jvp(pulled, (flat,), (v,))[1], flat)), left)

        def at(x: Array, d: Array, m: Any) -> Array:
            return _tree.flat(problem.clip(unravel(x + d * jnp.exp2(-m.astype(d.real.dtype)).astype(d.dtype))))

        def size(problem: StaticProblem, x: Array) -> Float[Array, ""]:
            s = unravel(x)
            return jnp.sum(jnp.abs(_tree.flat(problem.unbalanced(s, problem.force(s)))) ** 2)

        # The number of halvings is not differentiated.
        still, x0, d0 = jax.lax.stop_gradient((eqx.filter(problem, eqx.is_array), flat, d))
        still = eqx.combine(still, problem)
        before = size(still, x0)

        def worse(m: Any) -> Bool[Array, ""]:
            return ~(size(still, at(x0, d0, m)) < before) & (m < _HALVINGS)

        m = jax.lax.while_loop(worse, lambda m: m + 1, jnp.asarray(0, jnp.int32))
        # If no shorter step helps, only rounding errors are left: take the whole step.
        return unravel(at(flat, d, jnp.where(m < _HALVINGS, m, 0))), memory

    def respond(self, problem: StaticProblem, s: PyTree, load: PyTree) -> PyTree:
        flat, unravel = jax.flatten_util.ravel_pytree(s)
        free = _tree.flat(problem.free(s, problem.force(s)))

        def stiffness(v: Array) -> Array:
            pushed = _tree.flat(problem.stiffness(s, unravel(jnp.where(free, v, 0))))
            return jnp.where(free, pushed, v)

        def solve(stiffness: Any, load: Array) -> Array:
            ds = jnp.linalg.solve(_matrix(stiffness, flat), load)
            if not problem.throw:
                return ds
            return eqx.error_if(
                ds,
                ~jnp.all(jnp.isfinite(ds)),
                "equilibrium: the stiffness is singular at the state of rest, so its linear response is infinite and "
                "no gradient exists. Give the flat direction some stiffness.",
            )

        ds = jax.lax.custom_linear_solve(stiffness, jnp.where(free, _tree.flat(load), 0), solve, solve)
        return unravel(ds)


def _matrix(linear: Any, like: Array) -> Array:
    """Return the matrix of a linear map of vectors like `like`."""
    return jax.vmap(linear, out_axes=1)(jnp.eye(like.size, dtype=like.dtype))


def _on(free: Bool[Array, " n"], matrix: Array) -> Array:
    """Return the matrix on the free coordinates, and the unit matrix on the others."""
    both = free[:, None] & free[None, :]
    return jnp.where(both, matrix, jnp.eye(matrix.shape[0], dtype=matrix.dtype))
