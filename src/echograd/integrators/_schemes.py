"""The palindromic schemes, from their published coefficients."""

import itertools
from typing import Any, ClassVar

import equinox as eqx
from jaxtyping import Array, Int

from .._internal import _checks
from .._internal._errors import ArgumentError
from ._base import State, StepInputs
from ._damped import ahead, back
from ._grid import grid_of, rounded
from ._palindrome import Substep, palindrome
from ._splitting import AbstractSplitting

# Halves of the symmetric compositions of leapfrog, middle coefficient last.
_COMPOSITIONS: dict[int, tuple[float, ...]] = {
    4: (1.3512071919596578, -1.7024143839193153),
    6: (
        0.78451361047755726381949763,
        0.23557321335935813368479318,
        -1.17767998417887100694641568,
        1.31518632068391121888424973,
    ),
    8: (
        0.74167036435061295344822780,
        -0.40910082580003159399730010,
        0.19075471029623837995387626,
        -0.57386247111608226665638773,
        0.29906418130365592384446354,
        0.33462491824529818378495798,
        0.31529309239676659663205666,
        -0.79688793935291635401978884,
    ),
}


def composition(owner: str, order: int) -> tuple[float, ...]:
    """Return the lengths of the second-order steps that compose a step of this order."""
    if _checks.integer(owner, "order", order) not in _COMPOSITIONS:
        raise ArgumentError(
            f"{owner}(order={order!r}): there are compositions of order 4, 6 and 8. "
            "Use one of these, or the plain scheme of order 2."
        )
    half = _COMPOSITIONS[order]
    return half + half[-2::-1]


class AbstractFixedPoint(AbstractSplitting):
    """A scheme that can compute in fixed point, see `Leapfrog`."""

    exact: bool = eqx.field(
        static=True, default=False, converter=_checks.converter(_checks.flag, "Leapfrog, VelocityVerlet", "exact")
    )
    bits: int | None = eqx.field(
        static=True,
        default=None,
        converter=_checks.optional(
            _checks.integer, "Leapfrog, VelocityVerlet", "bits", -1022, 1022, "the number of binary digits"
        ),
    )

    def __check_init__(self) -> None:
        if self.bits is not None and not self.exact:
            name = type(self).__name__
            raise ArgumentError(f"{name}(bits={self.bits!r}): bits need exact=True. Pass both or neither.")

    def prepared(self, given: StepInputs, z0: State) -> tuple[StepInputs, State]:
        given, z0 = super().prepared(given, z0)
        if not self.exact:
            return given, z0
        grid = grid_of(given, z0, self.bits)
        return eqx.tree_at(lambda w: w.grid, given, grid, is_leaf=lambda x: x is None), rounded(z0, grid)

    def recorded(self, given: StepInputs, k: Int[Array, ""], z: State, record: Any) -> tuple[State, Any]:
        return ahead(self.substeps, given, k, z, record)

    def rewound(
        self, wanted: StepInputs, rest: StepInputs, k: Int[Array, ""], z: State, bars: State, record: Any
    ) -> tuple[State, State, StepInputs, Any]:
        return back(self.substeps, wanted, rest, k, z, bars, record)


class Leapfrog(AbstractFixedPoint):
    r"""Drift ½, kick 1, drift ½: second order, one force evaluation a step. The default.

    $$q_{1/2} = q + \tfrac h2 T'(p), \quad p' = p - h V'(q_{1/2}), \quad q' = q_{1/2} + \tfrac h2 T'(p')$$

    Also known as position Verlet. With `exact=True` it computes in fixed point: the state is on a grid of spacing
    $g$, a power of two, and every increment is rounded to it, $q \leftarrow q + g\,{\rm round}(\tfrac h2 T'(p)/g)$.
    Sums on the grid are exact, so the map has an exact inverse and an echo returns to the initial state **bit for
    bit**, however long and chaotic the trajectory. Only then is the differentiated trajectory known to be the one that
    was run. Derivatives are those of the increments at the rounded states. The state stays an array of floats, with a
    few bits less: increments are rounded to 2^-20 of the size of the state in float32, 2^-45 in float64.

    Args:
        exact: whether to compute in fixed point, from an `InitialValue`.
        bits: with `exact`, the number of binary digits after the point, $g = 2^{-bits}$ in the units of coordinates and
            momenta. By default the spacing of every array of the state is chosen from its initial size (or motion),
            with room to grow by a factor of 16 (256 in float64). Each call of `solve` chooses anew and rounds its
            initial state. To continue a run bit for bit, pass the same `bits` to both calls.

    Raises:
        ArgumentError: if `bits` is not an integer, or given without `exact`.
        RunError: (at run time) if the state outgrows the grid, if its size cannot be estimated, or if an echo does not
            return to the initial bits.

    Source: E. Hairer, C. Lubich, G. Wanner, *Geometric Numerical Integration*, 2nd ed. (2006), eq. I.1.17 and section
    II.5; the step of the RHEL paper, arXiv 2506.05259. Fixed point: D. Levesque and L. Verlet, J. Stat. Phys. 72 (1993)
    519.

    Example:
        ```python
        eg.solve(system, boundary, dt=0.01, steps=10_000, integrator=eg.Leapfrog(exact=True))
        ```
    """

    order: ClassVar[int] = 2
    substeps: ClassVar[tuple[Substep, ...]] = palindrome((0.5, 1.0, 0.5), "drift")


class VelocityVerlet(AbstractFixedPoint):
    r"""Kick ½, drift 1, kick ½: second order, the mirror image of `Leapfrog`.

    $$p_{1/2} = p - \tfrac h2 V'(q), \quad q' = q + h T'(p_{1/2}), \quad p' = p_{1/2} - \tfrac h2 V'(q')$$

    Forces are evaluated at the nodes, twice per step, because the input may jump between steps.

    Source: E. Hairer, C. Lubich, G. Wanner, *Geometric Numerical Integration*, 2nd ed. (2006), eq. I.1.17.

    Example:
        ```python
        eg.solve(system, boundary, dt=0.01, steps=100, integrator=eg.VelocityVerlet())
        ```
    """

    order: ClassVar[int] = 2
    substeps: ClassVar[tuple[Substep, ...]] = palindrome((0.5, 1.0, 0.5), "kick")


class Yoshida(AbstractSplitting):
    r"""Symmetric composition of 3, 7 or 15 leapfrogs: order 4, 6 or 8.

    $$\Phi = \Phi^{\rm leapfrog}_{\gamma_1 h} \circ \Phi^{\rm leapfrog}_{\gamma_2 h} \circ \dots
    \circ \Phi^{\rm leapfrog}_{\gamma_1 h}$$

    The input is held during a whole step, also in substeps that run backwards.

    Args:
        order: 4, 6 or 8.

    Raises:
        ArgumentError: for another order.

    Source: H. Yoshida, Phys. Lett. A 150 (1990) 262 (orders 4 and 6); M. Suzuki and K. Umeno (1993) for order 8, as
    printed in Hairer, Lubich, Wanner, *Geometric Numerical Integration*, 2nd ed. (2006), eqs. V.3.10 and V.3.11.

    Example:
        ```python
        eg.solve(system, boundary, dt=0.1, steps=100, integrator=eg.Yoshida(6))
        ```
    """

    order: int = eqx.field(static=True)
    substeps: tuple[Substep, ...] = eqx.field(static=True, repr=False)

    def __init__(self, order: int = 4) -> None:
        gamma = composition("Yoshida", order)
        drifts = [0.5 * gamma[0], *(0.5 * (a + b) for a, b in itertools.pairwise(gamma)), 0.5 * gamma[-1]]
        lengths = [x for pair in zip(drifts, gamma, strict=False) for x in pair] + [drifts[-1]]
        # Exact mirror images: rounding of the sums above must not break the symmetry.
        n = len(lengths)
        lengths = [lengths[min(i, n - 1 - i)] for i in range(n)]
        self.order = order
        self.substeps = palindrome(tuple(lengths), "drift")
