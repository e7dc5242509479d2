r"""The symplectic algebra of boundary conditions: duals and defects.

The ends of a trajectory under a boundary condition can vary in a subspace $W$ of $\mathbb R^{4n}$, on which
$\Omega = \omega_N - \omega_0$ is a symplectic form. Theorem 2 in `docs/boundaries.md`: the boundary residual of a
nudged problem vanishes for every system, cost and parameters if and only if its own variations lie in $W^\Omega$.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._internal import _checks, _tree
from .._internal._errors import ArgumentTypeError
from ._base import AbstractBoundary, End
from ._ends import FixedEnds, FreeEnds, LinearBoundary, MixedEnds, Periodic
from ._states import FinalValue, InitialValue


def omega(n: int, dtype: Any) -> Float[Array, "4n 4n"]:
    r"""Return the matrix of $\Omega = \omega_N - \omega_0$ on $(q_0, p_0, q_N, p_N)$.

    $$\omega(\delta_1, \delta_2) = \delta_1 p \cdot \delta_2 q - \delta_2 p \cdot \delta_1 q$$
    """
    form = jnp.asarray([[0, -1], [1, 0]], dtype)
    sides = jnp.asarray([[-1, 0], [0, 1]], dtype)
    return jnp.kron(jnp.kron(sides, form), jnp.eye(n, dtype=dtype))


def tangent(rows: Float[Array, "2n 4n"]) -> Float[Array, "4n 2n"]:
    """Return an orthonormal basis of the variations that a condition allows.

    Differentiable, without differentiating the singular value decomposition: to first order, only changes that the
    condition requires are included.
    """
    basis = jnp.linalg.svd(jax.lax.stop_gradient(rows), full_matrices=True)[2][rows.shape[0] :].T
    return basis - jnp.linalg.pinv(rows) @ (rows @ basis)


def dual_rows(rows: Float[Array, "2n 4n"]) -> Float[Array, "2n 4n"]:
    r"""Return orthonormal rows of the dual condition, $(\Omega N)^{\sf T}$ with $N$ a basis of the tangent space."""
    return (omega(rows.shape[0] // 2, rows.dtype) @ tangent(rows)).T


def _rows(owner: str, boundary: AbstractBoundary, like: PyTree) -> Float[Array, "2n 4n"]:
    """Return the rows of a condition. If it fits any number of coordinates and `like` is `None`, assume one."""
    _checks.instance(
        owner, "boundary", boundary, AbstractBoundary, "a boundary condition such as InitialValue(q, p), an instance"
    )
    like = _checks.state(owner, "like", like)
    if isinstance(boundary, InitialValue | FinalValue):
        # A velocity fixes the momentum through the energy, so the free variations are the same.
        boundary = type(boundary)(boundary.q, boundary.q)
    like = boundary.structure() if like is None else like
    like = jnp.zeros(1) if like is None else like
    nowhere = End(0.0, None)
    return boundary.rows(None, nowhere, nowhere, like)[0]  # pyright: ignore[reportArgumentType]


def defect(boundary: AbstractBoundary, like: PyTree = None) -> Float[Array, ""]:
    r"""Return how far a boundary condition is from being its own dual: $\|N^{\sf T} \Omega N\|_2$.

    $N$ is an orthonormal basis of the variations $W$ that the condition allows. Zero means that $W$ is isotropic: then
    nudging under the same condition leaves no boundary residual. The largest value is one, for an initial value.

    Args:
        boundary: the condition.
        like: coordinates of the intended shape, if the condition fits any shape; by default one coordinate.

    Returns:
        A scalar between 0 and 1.

    Source: theorem 2 in `docs/boundaries.md`; the boundary residual of arXiv 2506.06248.

    Example:
        ```python
        eg.defect(eg.FixedEnds(jnp.zeros(3), jnp.ones(3)))  # 0
        eg.defect(eg.InitialValue(jnp.zeros(3), jnp.ones(3)))  # 1
        ```
    """
    rows = _rows("defect", boundary, like)
    basis = tangent(rows)
    return jnp.linalg.norm(basis.T @ omega(rows.shape[0] // 2, rows.dtype) @ basis, 2)


def dual(boundary: AbstractBoundary, ends: tuple[Any, Any] | None = None, like: PyTree = None) -> AbstractBoundary:
    r"""Return the condition under which the nudged trajectory leaves no boundary residual.

    Let $W$ be the variations of the ends that `boundary` allows. The dual allows
    $W^\Omega = \{w : \Omega(w, w') = 0 \text{ for all } w' \in W\}$, about the ends of the free trajectory. It always
    exists, is unique, and its dual is `boundary` again. The dual of an initial value is a final value. Fixed, free,
    mixed and periodic ends are self-dual.

    Args:
        boundary: the condition of the free problem.
        ends: the free trajectory's end states `((q0, p0), (qN, pN))`. Without them the dual of a condition
            that is not self-dual is returned as a homogeneous `LinearBoundary` on the *deviations* from the free
            trajectory.
        like: coordinates of the intended shape, if the condition fits any shape; by default one coordinate.

    Returns:
        A boundary condition.

    Source: theorem 2 in `docs/boundaries.md`; "parametric final value problem" of arXiv 2506.06248.

    Example:
        ```python
        sol = eg.solve(system, boundary, dt=0.1, steps=20)
        end = sol.q[-1], sol.p[-1]
        eg.dual(boundary, ends=((q, p), end))  # FinalValue(*end)
        ```
    """
    if isinstance(boundary, FixedEnds | FreeEnds | MixedEnds | Periodic):
        return boundary
    if ends is not None:
        if not isinstance(ends, tuple | list) or len(ends) != 2:
            raise ArgumentTypeError(f"dual: ends={_checks.shown(ends)} is not a pair of states ((q0, p0), (qN, pN)).")
        ends = _checks.pair("dual", "ends[0]", ends[0]), _checks.pair("dual", "ends[1]", ends[1])
        if isinstance(boundary, InitialValue):
            return FinalValue(*ends[1])
        if isinstance(boundary, FinalValue):
            return InitialValue(*ends[0])
        rows = dual_rows(_rows("dual", boundary, ends[0][0] if like is None else like))
        return LinearBoundary(rows, rows @ _tree.flat(ends))
    rows = dual_rows(_rows("dual", boundary, like))
    return LinearBoundary(rows, jnp.zeros(rows.shape[0], rows.dtype))
