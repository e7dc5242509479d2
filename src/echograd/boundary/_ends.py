"""Conditions that tie both ends: two-point boundary value problems."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, PyTree

from .._internal import _checks, _tree
from .._internal._errors import ArgumentError
from ..systems import Hamiltonian
from ._base import AbstractBoundary, End


def _select(n: int, dtype: Any, *columns: int) -> Float[Array, "2n 4n"]:
    """Return the rows that select two of the four blocks q₀, p₀, q_N, p_N."""
    identity, zero = jnp.eye(n, dtype=dtype), jnp.zeros((n, n), dtype)
    return jnp.concatenate([jnp.concatenate([identity if i == c else zero for i in range(4)], 1) for c in columns])


def _array(owner: str, name: str, x: Any) -> Array:
    """Return a matrix or a vector of real numbers from an array or nested lists."""
    try:
        x = x if isinstance(x, jax.Array) else np.asarray(x)
    except ValueError:  # rows of different lengths
        raise ArgumentError(f"{owner}: {name}={_checks.shown(x)} is not an array: its rows differ in length.") from None
    return _checks.array(owner, name, x)


class FixedEnds(AbstractBoundary):
    r"""Fix the coordinates at both ends, $q_0$ and $q_N$: Hamilton's principle. Self-dual.

    Args:
        q0: coordinates at node 0, any PyTree of real arrays.
        qN: coordinates at node N, of the same structure and shapes.

    Raises:
        ArgumentError: if structures or shapes differ, or a leaf is complex.

    Source: the CBVP of arXiv 2506.06248; S. Massar, arXiv 2505.07363.

    Example:
        ```python
        eg.FixedEnds(q0=jnp.zeros(3), qN=jnp.ones(3))
        ```
    """

    q0: PyTree
    qN: PyTree

    def __init__(self, q0: PyTree, qN: PyTree) -> None:
        self.q0, self.qN = _checks.state("FixedEnds", "q0", q0), _checks.state("FixedEnds", "qN", qN)

    def __check_init__(self) -> None:
        _checks.same_shapes("FixedEnds", "q0", self.q0, "qN", self.qN)

    def structure(self) -> PyTree:
        return self.q0

    def rows(self, system: Hamiltonian, start: End, stop: End, like: PyTree) -> tuple[Array, Array]:
        b = jnp.concatenate([_tree.flat(self.q0), _tree.flat(self.qN)])
        return _select(b.size // 2, b.dtype, 0, 2), b


class FreeEnds(AbstractBoundary):
    r"""Fix the momenta at both ends, to zero by default: natural boundary conditions. Self-dual.

    Args:
        p0: momenta at node 0, any PyTree of real arrays; zero by default.
        pN: momenta at node N; zero by default.

    Raises:
        ArgumentError: if structures or shapes differ, or a leaf is complex.

    Example:
        ```python
        eg.FreeEnds()
        eg.FreeEnds(p0=jnp.zeros(3), pN=jnp.ones(3))
        ```
    """

    p0: PyTree
    pN: PyTree

    def __init__(self, p0: PyTree = None, pN: PyTree = None) -> None:
        p0, pN = (_checks.state("FreeEnds", name, p) for name, p in (("p0", p0), ("pN", pN)))
        self.p0 = _tree.zeros_like(pN) if p0 is None else p0
        self.pN = _tree.zeros_like(p0) if pN is None else pN

    def __check_init__(self) -> None:
        if self.p0 is not None:
            _checks.same_shapes("FreeEnds", "p0", self.p0, "pN", self.pN)

    def structure(self) -> PyTree:
        return self.p0

    def rows(self, system: Hamiltonian, start: End, stop: End, like: PyTree) -> tuple[Array, Array]:
        zeros = jnp.zeros_like(_tree.flat(like))
        b = jnp.concatenate([zeros if p is None else _tree.flat(p) for p in (self.p0, self.pN)])
        return _select(zeros.size, b.dtype, 1, 3), b


class MixedEnds(AbstractBoundary):
    r"""Fix the coordinates at one end and the momenta at the other. Self-dual.

    Give `q0` and `pN`, or `p0` and `qN`.

    Args:
        q0: coordinates at node 0, any PyTree of real arrays.
        pN: momenta at node N, of the same structure and shapes.
        p0: momenta at node 0, with `qN`.
        qN: coordinates at node N, with `p0`.

    Raises:
        ArgumentError: for another pair, or if structures or shapes differ.

    Example:
        ```python
        eg.MixedEnds(q0=jnp.zeros(3), pN=jnp.ones(3))
        ```
    """

    q0: PyTree
    pN: PyTree
    p0: PyTree
    qN: PyTree

    def __init__(self, q0: PyTree = None, pN: PyTree = None, *, p0: PyTree = None, qN: PyTree = None) -> None:
        given = {name: x is not None for name, x in {"q0": q0, "pN": pN, "p0": p0, "qN": qN}.items()}
        if [name for name, there in given.items() if there] not in (["q0", "pN"], ["p0", "qN"]):
            raise ArgumentError(
                "MixedEnds takes coordinates at one end and momenta at the other: q0 and pN, or p0 and qN. For two "
                "of a kind use FixedEnds(q0, qN) or FreeEnds(p0, pN); for both at one end InitialValue or FinalValue."
            )
        parts = {"q0": q0, "pN": pN, "p0": p0, "qN": qN}
        parts = {name: None if x is None else _checks.state("MixedEnds", name, x) for name, x in parts.items()}
        self.q0, self.pN, self.p0, self.qN = parts["q0"], parts["pN"], parts["p0"], parts["qN"]

    def __check_init__(self) -> None:
        if self.q0 is not None:
            _checks.same_shapes("MixedEnds", "q0", self.q0, "pN", self.pN)
        else:
            _checks.same_shapes("MixedEnds", "p0", self.p0, "qN", self.qN)

    def structure(self) -> PyTree:
        return self.q0 if self.q0 is not None else self.qN

    def rows(self, system: Hamiltonian, start: End, stop: End, like: PyTree) -> tuple[Array, Array]:
        if self.q0 is not None:
            b = jnp.concatenate([_tree.flat(self.q0), _tree.flat(self.pN)])
            return _select(b.size // 2, b.dtype, 0, 3), b
        b = jnp.concatenate([_tree.flat(self.p0), _tree.flat(self.qN)])
        return _select(b.size // 2, b.dtype, 1, 2), b


class Periodic(AbstractBoundary):
    r"""Close the trajectory: $q_N = R q_0$ and $p_N = R p_0$ with a constant twist $R$. Self-dual.

    Args:
        twist: 1 (periodic), -1 (antiperiodic), or an orthogonal matrix of shape (n, n) on the flattened coordinates.

    Raises:
        ArgumentError: for any other twist: the condition would not be self-dual. Use `LinearBoundary`.

    Source: the PBVP of arXiv 2506.06248; S. Massar, arXiv 2505.07363.

    Example:
        ```python
        drive = jnp.cos(jnp.arange(60) * jnp.pi / 30)[:, None] * jnp.ones(q.shape)
        eg.solve(system, eg.Periodic(), drive, dt=0.1, guess=(0 * q, 0 * p))
        ```
    """

    twist: Any = eqx.field(static=True)

    def __init__(self, twist: Any = 1) -> None:
        try:
            matrix = np.asarray(np.asarray(twist), float) if np.asarray(twist).dtype.kind in "iuf" else None
        except (TypeError, ValueError):  # a traced one, or rows of different lengths
            matrix = None
        if matrix is None:
            raise ArgumentError(f"Periodic: twist={_checks.shown(twist)} must be 1, -1 or a constant matrix.")
        if matrix.ndim == 0:
            if abs(matrix) != 1:
                raise ArgumentError(
                    f"Periodic(twist={twist!r}): a number must be 1 or -1. Scaling both coordinates and momenta is not "
                    "symplectic; for such a condition use LinearBoundary(B, b)."
                )
            self.twist = int(matrix)
        else:
            square = matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1]
            if not square or not np.allclose(matrix @ matrix.T, np.eye(len(matrix)), atol=1e-10):
                raise ArgumentError(
                    f"Periodic(twist): the matrix of shape {matrix.shape} is not orthogonal, R Rᵀ = 1. For another "
                    "relation between the ends use LinearBoundary(B, b)."
                )
            self.twist = tuple(map(tuple, matrix.tolist()))

    def structure(self) -> PyTree:
        return None

    def rows(self, system: Hamiltonian, start: End, stop: End, like: PyTree) -> tuple[Array, Array]:
        x = _tree.flat(like)
        n = x.size
        twist = jnp.asarray(self.twist, x.dtype)
        if twist.ndim and twist.shape != (n, n):
            raise ArgumentError(f"Periodic: the twist has shape {twist.shape}, but there are {n} coordinates.")
        twist = twist if twist.ndim else twist * jnp.eye(n, dtype=x.dtype)
        both = jnp.kron(jnp.eye(2, dtype=x.dtype), twist)
        return jnp.concatenate([-both, jnp.eye(2 * n, dtype=x.dtype)], 1), jnp.zeros(2 * n, x.dtype)


class Robin(AbstractBoundary):
    r"""Tie momentum to coordinate at each end: $p_0 = K_0 q_0 + b_0$ and $p_N = K_N q_N + b_N$.

    Self-dual if and only if $K_0$ and $K_N$ are symmetric: then each end is like one held by springs.

    Args:
        K0: matrix of shape (n, n) on the flattened coordinates, or one number.
        KN: likewise, at node N.
        b0: offset of shape (n,); zero by default.
        bN: likewise, at node N.

    Raises:
        ArgumentError: for shapes that do not fit.

    Example:
        ```python
        eg.Robin(K0=jnp.eye(3), KN=jnp.array([[1.0, 0.5, 0.0], [-0.5, 1.0, 0.0], [0.0, 0.0, 1.0]]))
        ```
    """

    K0: Array
    KN: Array
    b0: Array | None
    bN: Array | None

    def __init__(self, K0: Any, KN: Any, b0: Any = None, bN: Any = None) -> None:
        self.K0, self.KN = _array("Robin", "K0", K0), _array("Robin", "KN", KN)
        self.b0 = None if b0 is None else _array("Robin", "b0", b0)
        self.bN = None if bN is None else _array("Robin", "bN", bN)

    def __check_init__(self) -> None:
        for name, matrix in (("K0", self.K0), ("KN", self.KN)):
            if matrix.ndim not in (0, 2) or (matrix.ndim == 2 and matrix.shape[0] != matrix.shape[1]):
                raise ArgumentError(f"Robin: {name} has shape {matrix.shape}; give a square matrix or one number.")

    def structure(self) -> PyTree:
        sized = [len(m) for m in (self.K0, self.KN) if m.ndim]
        return jnp.zeros(sized[0], self.K0.dtype) if sized else None

    def rows(self, system: Hamiltonian, start: End, stop: End, like: PyTree) -> tuple[Array, Array]:
        x = _tree.flat(like)
        n = x.size
        identity, zero = jnp.eye(n, dtype=x.dtype), jnp.zeros((n, n), x.dtype)

        def matrix(name: str, m: Array) -> Array:
            if m.ndim and m.shape != (n, n):
                raise ArgumentError(f"Robin: {name} has shape {m.shape}, but there are {n} coordinates.")
            return m.astype(x.dtype) if m.ndim else m.astype(x.dtype) * identity

        def offset(name: str, b: Array | None) -> Array:
            if b is not None and b.size != n:
                raise ArgumentError(f"Robin: {name} has {b.size} entries, but there are {n} coordinates.")
            return zero[0] if b is None else b.reshape(n).astype(x.dtype)

        top = jnp.concatenate([-matrix("K0", self.K0), identity, zero, zero], 1)
        bottom = jnp.concatenate([zero, zero, -matrix("KN", self.KN), identity], 1)
        return jnp.concatenate([top, bottom]), jnp.concatenate([offset("b0", self.b0), offset("bN", self.bN)])


class LinearBoundary(AbstractBoundary):
    r"""The general linear condition $B\,(q_0, p_0, q_N, p_N) = b$.

    Args:
        B: matrix of shape (2n, 4n) on the flattened ends, of full rank.
        b: right-hand side of shape (2n,).

    Raises:
        ArgumentError: for shapes that do not fit, or for a rank-deficient matrix (unless it is traced).

    Example:
        ```python
        identity = jnp.eye(3)
        zero = jnp.zeros((3, 3))
        rows = jnp.block([[identity, zero, -identity, zero], [zero, identity, zero, -2 * identity]])
        eg.LinearBoundary(rows, jnp.zeros(6))  # q_0 = q_N, p_0 = 2 p_N
        ```
    """

    B: Float[Array, "2n 4n"]
    b: Float[Array, " 2n"]

    def __init__(self, B: Any, b: Any) -> None:
        self.B, self.b = _array("LinearBoundary", "B", B), _array("LinearBoundary", "b", b)

    def __check_init__(self) -> None:
        rows = self.B.shape[0] if self.B.ndim == 2 else 0
        if self.B.ndim != 2 or rows % 2 or self.B.shape[1] != 2 * rows or not rows:
            raise ArgumentError(
                f"LinearBoundary: B has shape {self.B.shape}; with n coordinates it needs 2n rows (one per condition) "
                "and 4n columns (q0, p0, qN, pN)."
            )
        if self.b.shape != (rows,):
            raise ArgumentError(f"LinearBoundary: b has shape {self.b.shape}, but B has {rows} rows.")
        if isinstance(self.B, Tracer):
            return
        rank = int(np.linalg.matrix_rank(np.asarray(self.B)))
        if rank < rows:
            raise ArgumentError(
                f"LinearBoundary: B has rank {rank}, fewer than its {rows} rows: some conditions repeat others (or "
                "contradict them), so the trajectory is not determined. Replace the dependent rows."
            )

    def structure(self) -> PyTree:
        return jnp.zeros(self.B.shape[0] // 2, self.B.dtype)

    def rows(self, system: Hamiltonian, start: End, stop: End, like: PyTree) -> tuple[Array, Array]:
        n = _tree.flat(like).size
        if self.B.shape[0] != 2 * n:
            raise ArgumentError(
                f"LinearBoundary: B is for {self.B.shape[0] // 2} coordinates, but the system has {n}. Check "
                "the guess and the order (q0, p0, qN, pN)."
            )
        return self.B, self.b
