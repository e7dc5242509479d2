r"""Linear two-point boundary value problems: a chain of blocks with a border, solved in $O(N m^3)$.

$$x_{k+1} - M_k x_k = r_k, \quad k = 0 \dots N-1, \qquad B_0 x_0 + B_N x_N = \rho$$

The interior nodes are eliminated one by one by Householder reflections. This is stable for solutions that grow, decay
or oscillate, and for any boundary condition (S. J. Wright, SIAM J. Sci. Stat. Comput. 13 (1992) 742); a product of the
$M_k$ would not be.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float


class Factors(eqx.Module):
    """The eliminated chain, for `solve`, which is linear in the right-hand side, so JAX can transpose it.

    Attributes:
        reflections: orthogonal matrices, one per interior node.
        upper, first, after: the rows `upper x_k + first x_0 + after x_{k+1} = …` that give the interior nodes back.
        border: LU factors for the two end nodes, with their pivots.
        link: the R factor of a QR decomposition of the (transposed) rows by which the dynamics tie the two ends.
        triangle: the R factor of a QR decomposition of the (transposed) rows of the boundary condition.
        transversality: the smallest singular value of the orthonormalised end rows, between 0 and 1: the sine of the
            angle between the ends that the dynamics allow and those that the boundary condition allows. Zero at a
            conjugate point.
    """

    reflections: Float[Array, "interior 2m 2m"]
    upper: Float[Array, "interior m m"]
    first: Float[Array, "interior m m"]
    after: Float[Array, "interior m m"]
    border: Any
    link: Float[Array, "m m"]
    triangle: Float[Array, "m m"]
    transversality: Float[Array, ""]


def factorise(steps: Float[Array, "N m m"], rows: Float[Array, "m 2m"]) -> Factors:
    """Eliminate the interior nodes of the chain with one-step matrices `steps` and boundary rows `(B_0, B_N)`."""
    m = rows.shape[0]
    identity = jnp.eye(m, dtype=steps.dtype)

    def eliminate(carry: Any, step: Float[Array, "m m"]) -> Any:
        first, last = carry
        q, r = jnp.linalg.qr(jnp.concatenate([last, -step]), mode="complete")
        q = q.T
        kept = r[:m], q[:m, :m] @ first, q[:m, m:]
        return (q[m:, :m] @ first, q[m:, m:]), (q, *kept)

    (first, last), (reflections, upper, e, g) = jax.lax.scan(eliminate, (-steps[0], identity), steps[1:])
    # Orthonormal rows, so that their smallest singular value measures an angle.
    ties, link = jnp.linalg.qr(jnp.concatenate([first, last], 1).T)
    held, triangle = jnp.linalg.qr(rows.T)
    ends = jnp.concatenate([ties.T, held.T])
    transversality = jnp.linalg.svd(ends, compute_uv=False)[-1]
    return Factors(reflections, upper, e, g, jax.scipy.linalg.lu_factor(ends), link, triangle, transversality)


def solve(factors: Factors, r: Float[Array, "N m"], rho: Float[Array, " m"]) -> Float[Array, "N+1 m"]:
    """Return the nodes for a right-hand side: `r` of the steps and `rho` of the boundary condition."""
    m = rho.shape[0]

    def reduce(carry: Float[Array, " m"], x: Any) -> Any:
        reflection, r = x
        both = reflection @ jnp.concatenate([carry, r])
        return both[m:], both[:m]

    tied, rest = jax.lax.scan(reduce, r[0], (factors.reflections, r[1:]))
    right = jnp.concatenate(
        [
            solve_triangular(factors.link, tied, trans="T"),
            solve_triangular(factors.triangle, rho, trans="T"),
        ]
    )
    ends = jax.scipy.linalg.lu_solve(factors.border, right)
    start, stop = ends[:m], ends[m:]

    def substitute(after: Float[Array, " m"], x: Any) -> Any:
        upper, first, next_, rest = x
        node = solve_triangular(upper, rest - first @ start - next_ @ after)
        return node, node

    chain = (factors.upper, factors.first, factors.after, rest)
    _, interior = jax.lax.scan(substitute, stop, chain, reverse=True)
    return jnp.concatenate([start[None], interior, stop[None]])
