"""The flow of a Hermitian matrix, differentiable to any order even if eigenvalues coincide.

Complex waves are pairs of real arrays here, so that a complex nudge can make coordinates and momenta complex.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Pair = tuple[Array, Array]

# Gauss-Legendre nodes and weights on [0, 1]; exact to rounding for phases below the limit.
_NODES, _WEIGHTS = (0.5 * x for x in np.polynomial.legendre.leggauss(16))
_NODES = _NODES + 0.5
_LIMIT = 16.0


@jax.custom_jvp
def evolved(matrix: Array, s: Float[Array, ""], q: Array, p: Array) -> Pair:
    r"""Return $e^{-isK} (q + ip)$ for a Hermitian matrix, real or complex.

    The derivative with respect to the matrix is the integral along the flow (Duhamel)

    $$d\,e^{-isK} = -is \int_0^1 e^{-ixsK}\,dK\,e^{-i(1-x)sK}\,dx,$$

    which, unlike derivatives of eigenvectors, has no spectral gaps in denominators. The quadrature is exact to
    rounding. If a step turns the phases of two modes apart by more than 16, it is not, and derivatives are NaN.
    """
    return _product(propagator(matrix, s), (q, p))


@evolved.defjvp
def _evolved_jvp(primals: Any, tangents: Any) -> Any:
    (matrix, s, q, p), (dmatrix, ds, dq, dp) = primals, tangents
    after = evolved(matrix, s, q, p)
    ahead, behind, weights = _quadrature(matrix, s)
    kicks = jax.vmap(lambda u: _product(_parts(dmatrix), _product(u, (q, p))))(behind)
    swept = jax.vmap(_product)(ahead, kicks)
    swept = tuple(jnp.tensordot(weights.astype(x.dtype), x, 1) for x in swept)
    turned = _product(_parts(matrix), after)
    change = tuple(x + ds.astype(x.dtype) * y for x, y in zip(swept, turned, strict=True))
    carried = _product(propagator(matrix, s), (dq, dp))
    return after, (carried[0] + change[1], carried[1] - change[0])


@jax.custom_jvp
def propagator(matrix: Array, s: Float[Array, ""]) -> Pair:
    r"""Return the real and imaginary parts of $e^{-isK}$ for a Hermitian matrix; derivatives as for `evolved`."""
    w, v = jnp.linalg.eigh(matrix)
    cos, sin = jnp.cos(s * w), jnp.sin(s * w)
    if not jnp.iscomplexobj(v):
        return (v * cos[None]) @ v.T, (v * -sin[None]) @ v.T
    u = (v * jax.lax.complex(cos, -sin)[None]) @ v.T.conj()
    return u.real, u.imag


@propagator.defjvp
def _propagator_jvp(primals: Any, tangents: Any) -> Any:
    (matrix, s), (dmatrix, ds) = primals, tangents
    after = propagator(matrix, s)
    ahead, behind, weights = _quadrature(matrix, s)
    swept = jax.vmap(lambda u, v: _product(u, _product(_parts(dmatrix), v)))(ahead, behind)
    turned = _product(_parts(matrix), after)
    change = tuple(jnp.tensordot(weights, x, 1) + ds * y for x, y in zip(swept, turned, strict=True))
    return after, (change[1], -change[0])


def _product(a: Pair, b: Pair) -> Pair:
    """Return the product of a matrix and a vector or matrix, both complex."""
    return a[0] @ b[0] - a[1] @ b[1], a[0] @ b[1] + a[1] @ b[0]


def _parts(matrix: Array) -> Pair:
    return (matrix.real, matrix.imag) if jnp.iscomplexobj(matrix) else (matrix, jnp.zeros_like(matrix))


def _quadrature(matrix: Array, s: Array) -> tuple[Pair, Pair, Array]:
    """Return propagators after and up to the nodes, and the weights."""
    # The nodes are symmetric about the midpoint.
    ahead = jax.vmap(propagator, (None, 0))(matrix, s * jnp.asarray(_NODES, s.dtype))
    behind = ahead[0][::-1], ahead[1][::-1]
    reached = jnp.abs(jax.lax.stop_gradient(s)) * _width(jax.lax.stop_gradient(matrix)) <= _LIMIT
    return ahead, behind, jnp.where(reached, s * jnp.asarray(_WEIGHTS, s.dtype), jnp.nan)


def _width(matrix: Array) -> Float[Array, ""]:
    """Return an upper bound of the width of the spectrum: the smaller one of Gershgorin's and Frobenius'."""
    n = matrix.shape[0]
    centred = jnp.abs(matrix - jnp.trace(matrix) / n * jnp.eye(n, dtype=matrix.dtype))
    return jnp.minimum(2 * jnp.max(jnp.sum(centred, 1)), 2**0.5 * jnp.sqrt(jnp.sum(centred**2)))
