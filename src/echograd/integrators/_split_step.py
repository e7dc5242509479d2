"""Split-step integration: a palindrome of flows of the parts of an energy."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .._internal import _checks, _tree
from .._internal._energy import zero_reading
from .._internal._errors import ArgumentTypeError
from ..systems import AbstractPart, Dissipative, Hamiltonian, SeparableHamiltonian, SplitHamiltonian
from ..systems._split import flow_and_read, parts_of
from ._base import AbstractIntegrator, Direction, State, StepInputs, sign
from ._schemes import composition


class SplitStep(AbstractIntegrator):
    r"""The symmetric composition of the exact flows of the parts of an energy (Strang splitting).

    With $H = A_1 + \dots + A_m$ and the flows $\varphi^i$ of the parts,

    $$\Phi_h = \varphi^1_{h/2} \circ \dots \circ \varphi^{m-1}_{h/2} \circ \varphi^m_h \circ \varphi^{m-1}_{h/2} \circ
    \dots \circ \varphi^1_{h/2}$$

    and its Yoshida compositions for the higher orders. Each is evaluated at the time in its middle. This is the default
    for a `SplitHamiltonian`; for a wave, the split-step Fourier method. A `SeparableHamiltonian` is split into drift,
    kick, drift: `Leapfrog`.

    The reading of a part is the exact integral $-\int \partial A/\partial\theta\,d\tau$ along its flow.

    Args:
        order: 2, 4, 6 or 8.

    Raises:
        ArgumentError: for another order.

    Source: G. Strang, SIAM J. Numer. Anal. 5 (1968) 506; J. A. C. Weideman and B. M. Herbst, SIAM J. Numer. Anal. 23
    (1986) 485, for the nonlinear Schroedinger equation.

    Example:
        ```python
        lattice = eg.systems.KerrLattice()
        eg.solve(lattice, eg.InitialValue(*lattice.start()), dt=0.01, steps=100, integrator=eg.SplitStep())
        ```
    """

    order: int = eqx.field(static=True)
    lengths: tuple[float, ...] = eqx.field(static=True, repr=False)

    def __init__(self, order: int = 2) -> None:
        self.order = order
        self.lengths = (1.0,) if _checks.integer("SplitStep", "order", order) == 2 else composition("SplitStep", order)

    @property
    def stability_limit(self) -> float:
        return math.inf

    def check(self, system: Hamiltonian | Dissipative) -> None:
        if not isinstance(system, SplitHamiltonian | SeparableHamiltonian):
            raise ArgumentTypeError(
                f"SplitStep composes the flows of the parts of an energy, but {type(system).__name__} does not "
                "define parts. Derive it from SplitHamiltonian, or pass integrator=ImplicitMidpoint()."
            )

    def read(
        self, wanted: StepInputs, rest: StepInputs, k: Int[Array, ""], z: State, direction: Direction = "forward"
    ) -> tuple[State, StepInputs]:
        dtype = eqx.combine(wanted, rest).h.dtype
        lengths = jnp.asarray(self.lengths, dtype)
        middles = jnp.cumsum(lengths) - 0.5 * lengths + k.astype(dtype)
        if direction != "forward":
            # The lengths are a palindrome, but the clock runs through them backwards.
            middles = middles[::-1]

        def strang(carry: Any, row: Float[Array, "2"]) -> tuple[Any, None]:
            return _strang(wanted, rest, row[0], row[1], direction, *carry), None

        carry = z, zero_reading(wanted, z)
        table = jnp.stack([lengths, middles], 1)
        if len(self.lengths) == 1:
            return strang(carry, table[0])[0]
        return jax.lax.scan(strang, carry, table)[0]


def _strang(
    wanted: StepInputs, rest: StepInputs, length: Any, middle: Any, direction: Direction, z: State, total: StepInputs
) -> tuple[State, StepInputs]:
    """Take one Strang step of `length` steps about the clock reading `middle`; add its reading to `total`."""
    now = eqx.combine(wanted, rest)
    m = len(parts_of(now.system, now.t0, now.u))
    half = [(i, 0.5) for i in range(m - 1)]
    for i, fraction in (*half, (m - 1, 1.0), *half[::-1]):

        def make(wanted: StepInputs, i: int = i, fraction: float = fraction) -> tuple[AbstractPart, Float[Array, ""]]:
            given = eqx.combine(wanted, rest).seen(direction)
            part = parts_of(given.system, given.t0 + middle * given.h, given.u)[i]
            return part, sign(direction) * fraction * length * given.h

        z, reading = flow_and_read(make, wanted, z)
        total = _tree.add(total, reading) if sign(direction) > 0 else _tree.subtract(total, reading)
    return z, total
