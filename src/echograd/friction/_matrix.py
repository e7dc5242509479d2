"""Friction by a constant matrix."""

import jax
import jax.flatten_util
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._internal import _checks
from .._internal._errors import ArgumentError, refuse_if
from ..systems import SeparableHamiltonian
from ..systems._parameter import converted
from ._moves import AbstractAction, AbstractFriction, Instant, Move, Scaling, Shear


class FrictionMatrix(AbstractFriction):
    r"""Friction that couples the momenta: $\dot p = -G p$.

    The flow over a step is $e^{-Gh} = L D U$ with unit triangular $L$, $U$, products of shears, and a diagonal $D$. The
    shears are reversible in fixed point without any record.

    Args:
        matrix: $G$, shape (n, n) for n momenta (the leaves of a tree one after the other), 1/time. Symmetric or not; an
            antisymmetric part turns the momenta and takes no energy.

    Raises:
        ArgumentError: if the matrix is not square or does not fit the momenta.
        RunError: (at run time) if $e^{-Gh}$ has no such factors: a step turns the momenta by more than a right angle.

    Source: G. H. Golub and C. F. Van Loan, *Matrix Computations*, 4th ed. (2013), section 3.2, for the factors.

    Example:
        ```python
        gamma = jnp.array([[0.2, -0.1], [-0.1, 0.3]])
        damped = eg.Damped(system, eg.friction.FrictionMatrix(gamma))
        ```
    """

    matrix: Float[Array, "n n"]

    def __init__(self, matrix: Float[Array, "n n"]) -> None:
        self.matrix = _checks.signed("FrictionMatrix", "matrix", converted(matrix))
        if self.matrix.ndim != 2 or self.matrix.shape[0] != self.matrix.shape[1]:
            raise ArgumentError(f"FrictionMatrix: the matrix has shape {self.matrix.shape}; it must be square.")

    def over_one_step(self, system: SeparableHamiltonian, h: Float[Array, ""], p: PyTree) -> "Factors":
        n = sum(x.size for x in jax.tree.leaves(p))
        if self.matrix.shape != (n, n):
            raise ArgumentError(f"FrictionMatrix: the matrix has shape {self.matrix.shape}, and there are {n} momenta.")
        dtype = jnp.result_type(*jax.tree.leaves(p))
        upper, diagonal, lower = _factors(jax.scipy.linalg.expm(-h.astype(dtype) * self.matrix.astype(dtype)))
        least = jnp.min(diagonal)
        diagonal = refuse_if(
            diagonal,
            ~(least > 0),
            "FrictionMatrix: exp(-G dt) has no triangular factors with a positive diagonal: its smallest entry is -{}. "
            "A step turns the momenta by more than a right angle. Shorten dt.",
            least,
        )
        return Factors(upper, 1 - diagonal, lower)


class Factors(AbstractAction):
    r"""The factors of $e^{-Gh}$.

    Attributes:
        upper: shears that act first, shape (levels, n, n).
        lost: 1 minus the diagonal that acts next.
        lower: shears that act last.
    """

    upper: Float[Array, "levels n n"]
    lost: Float[Array, " n"]
    lower: Float[Array, "levels n n"]

    def moves(self, now: Instant) -> tuple[Move, ...]:
        def shear(matrix: Array) -> Shear:
            return Shear(lambda p: _on_tree(lambda x: matrix @ x, p))

        scaling = Scaling(lambda p: _on_tree(lambda x: self.lost.astype(x.dtype), p))
        return (*map(shear, self.upper), scaling, *map(shear, self.lower))

    def strongest(self) -> Float[Array, ""]:
        return jnp.max(self.lost)


def _on_tree(f: object, p: PyTree) -> PyTree:
    flat, unravel = jax.flatten_util.ravel_pytree(p)
    return unravel(f(flat))  # pyright: ignore[reportCallIssue]


def _factors(m: Array) -> tuple[Array, Array, Array]:
    r"""Return shears and a diagonal with $m = \prod(1 + {\rm last}) \cdot {\rm diagonal} \cdot \prod(1 + {\rm first})$.

    With $m = (A, B; C, D)$ in blocks and $S = A - B D^{-1} C$,

    $$m = \begin{pmatrix} 1 & B D^{-1} \\ 0 & 1 \end{pmatrix} \begin{pmatrix} S & 0 \\ 0 & D \end{pmatrix}
    \begin{pmatrix} 1 & 0 \\ D^{-1} C & 1 \end{pmatrix}$$

    and the same again for $S$ and $D$ side by side. Shears are listed in the order in which they act.
    """
    n = m.shape[0]
    if n == 1:
        return jnp.zeros((0, 1, 1), m.dtype), m[0], jnp.zeros((0, 1, 1), m.dtype)
    half = n // 2
    a, b, c, d = m[:half, :half], m[:half, half:], m[half:, :half], m[half:, half:]
    left = jnp.linalg.solve(d.T, b.T).T
    first = jnp.zeros_like(m).at[half:, :half].set(jnp.linalg.solve(d, c))
    last = jnp.zeros_like(m).at[:half, half:].set(left)
    (first_s, diagonal_s, last_s), (first_d, diagonal_d, last_d) = _factors(a - left @ c), _factors(d)

    def beside(x: Array, y: Array, align: int) -> Array:
        """Return shears of both blocks as shears of the whole, the shorter list padded with zeros."""
        levels = max(len(x), len(y))
        blocks = jnp.zeros((levels, n, n), m.dtype)
        place = lambda z: slice(levels - len(z), None) if align else slice(0, len(z))  # noqa: E731
        return blocks.at[place(x), :half, :half].set(x).at[place(y), half:, half:].set(y)

    firsts = jnp.concatenate([first[None], beside(first_s, first_d, 0)])
    lasts = jnp.concatenate([beside(last_s, last_d, 1), last[None]])
    return firsts, jnp.concatenate([diagonal_s, diagonal_d]), lasts
