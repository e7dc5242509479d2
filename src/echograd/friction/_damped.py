"""A system with friction."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
from jaxtyping import Array, Float, PyTree

from .._internal import _checks
from .._internal._errors import ArgumentTypeError
from ..systems import SeparableHamiltonian
from ..systems._base import AbstractSystem, Scalar
from ._moves import AbstractAction, AbstractFriction
from ._rates import ConstantRates, VaryingRates, rates_of

Friction = AbstractFriction | Callable[[Any, PyTree, Any], PyTree] | PyTree


class Damped(AbstractSystem):
    r"""A system with friction: $\dot q = \partial T/\partial p$, $\dot p = -\partial V/\partial q - \gamma p$.

    Forces may be nonlinear, and rates may differ from momentum to momentum and depend on the coordinates, the time, the
    inputs and parameters: a sponge at the border of a field, drag in a medium, a heat bath.

    A step is a half step of the system, the friction, and the other half step; `Leapfrog` has the friction in the
    middle of its kick and `VelocityVerlet` in the middle of its drift. With constant rates friction multiplies a
    momentum by $e^{-\gamma h}$. Both schemes are of second order.

    No machine runs back through friction: it would have to gain the energy that it lost. Software can, if it keeps the
    bits that friction destroyed: `Rewind()`, the default gradient of such a system, is exact with little memory. Other
    frictions allow a gradient on the machine itself: see `MassDamped` for damping in proportion to the mass, and
    `Dissipative` with `Reciprocal()` for linear reciprocal systems.

    Args:
        system: the system without friction; its array leaves are trainable.
        friction: a rate for all momenta or one for each of them, in a tree like the momenta, in which `None` stands for
            an array of momenta without friction, 1/time; or a function `(t, q, u) -> rates` (an `equinox.Module` to
            have trainable arrays); or `friction.FrictionMatrix`, `friction.Drag`, `friction.Langevin`,
            `friction.NoseHoover`. Negative rates are gain.

    Raises:
        ArgumentTypeError: if the system is not a `SeparableHamiltonian`.
        ArgumentError: if the rates do not fit the momenta (when it is solved).

    Source: E. Hairer, C. Lubich, G. Wanner, *Geometric Numerical Integration*, 2nd ed. (2006), section II.5, for the
    splitting; "Exact gradients where energy is lost" in the documentation for the reversal.

    Example:
        ```python
        chain = eg.systems.FPUTChain()
        damped = eg.Damped(chain, friction=0.1)
        sol = eg.solve(damped, eg.InitialValue(*chain.start(n=32)), dt=0.1, steps=1000)
        ```
    """

    system: SeparableHamiltonian
    friction: AbstractFriction
    action: AbstractAction | None

    def __init__(self, system: SeparableHamiltonian, friction: Any) -> None:
        what = "a SeparableHamiltonian, whose energy is T(p) + V(q)"
        self.system = _checks.instance("Damped", "system", system, SeparableHamiltonian, what)
        self.friction, self.action = _friction(friction), None

    @property
    def mechanical(self) -> SeparableHamiltonian:
        """The system without friction, with the coordinates of a thermostat if there is one."""
        return self.friction.extended(self.system)

    def kinetic(self, t: Scalar, p: PyTree) -> Scalar:
        """Return the kinetic energy."""
        return self.mechanical.kinetic(t, p)

    def potential(self, t: Scalar, q: PyTree, u: Any) -> Scalar:
        """Return the potential energy."""
        return self.mechanical.potential(t, q, u)

    def admitted(self, z: Any, start: Scalar, stop: Scalar) -> Any:
        return self.system.admitted(z, start, stop)

    def over_one_step(self, h: Float[Array, ""], p: PyTree) -> "Damped":
        """Return the system with what its friction does in a step of this length, computed once for a run."""
        action = self.friction.over_one_step(self.mechanical, h, p)
        return eqx.tree_at(lambda x: x.action, self, action, is_leaf=lambda x: x is None)

    def over_this_step(self, h: Float[Array, ""], p: PyTree) -> AbstractAction:
        """Return what the friction does in a step."""
        return self.friction.over_one_step(self.mechanical, h, p) if self.action is None else self.action


def _friction(friction: Any) -> AbstractFriction:
    if isinstance(friction, AbstractFriction):
        return friction
    if isinstance(friction, type) or friction is None:
        raise ArgumentTypeError(
            f"Damped: friction={_checks.shown(friction)}. Pass a rate, a function (t, q, u) -> rates, or an instance "
            "such as friction.Drag(law)."
        )
    if callable(friction):
        return VaryingRates(friction)
    return ConstantRates(rates_of("Damped", "friction", friction))
