"""Friction that keeps a temperature."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._internal import _checks, _tree
from .._internal._errors import refuse_if
from ..systems import SeparableHamiltonian
from ..systems._base import Scalar
from ._moves import AbstractAction, AbstractFriction, Instant, Move, Scaling, Shear
from ._rates import Loss, lost, per_momentum, rates_of


class Langevin(AbstractFriction):
    r"""Friction and thermal noise: $dp = -\gamma p\, dt + \sqrt{2 \gamma m k_B T}\, dW$.

    With $f = e^{-\gamma h}$ a step takes $p \leftarrow f p + \sqrt{(1 - f^2)\, m k_B T}\, \xi$, the exact solution of
    this equation, between two half steps of the motion without friction: the scheme BAOAB, whose coordinates sample the
    Boltzmann distribution to a small error. The numbers $\xi$ come from the key, so the way back draws them again.
    Derivatives are those of the path at fixed $\xi$.

    Args:
        rate: $\gamma$ as for `Damped`: a number, or an array or tree like the momenta; 1/time.
        temperature: $k_B T$, in units of energy.
        key: a random key, as `jax.random.key(0)`. The same key gives the same path.

    Raises:
        ArgumentTypeError: if the key is not one random key.
        ArgumentError: if the temperature is negative, or the rates do not fit the momenta.
        RunError: (at run time) if the kinetic energy is not $\sum_i p_i^2/2m_i$ with constant masses.

    Source: B. Leimkuhler and C. Matthews, Appl. Math. Res. Express 2013, 34 (2013), for BAOAB.

    Example:
        ```python
        bath = eg.friction.Langevin(rate=0.5, temperature=1.0, key=jax.random.key(0))
        sol = eg.solve(eg.Damped(system, bath), eg.InitialValue(q, p), dt=0.05, steps=1000)
        ```
    """

    rate: PyTree
    temperature: Any
    key: PRNGKeyArray

    def __init__(self, rate: PyTree, temperature: float | Float[Array, ""], key: PRNGKeyArray) -> None:
        self.rate = rates_of("Langevin", "rate", rate)
        why = "the temperature is an energy, of at least 0"
        self.temperature = _checks.number("Langevin", "temperature", temperature, _checks.not_negative, why)
        self.key = _checks.key("Langevin", key)

    def over_one_step(self, system: SeparableHamiltonian, h: Float[Array, ""], p: PyTree) -> Loss:
        rates = per_momentum("Langevin", self.rate, p)
        loss, masses = lost(rates, h, p), _masses(system, p)

        def spread(x: Array, e: Any, m: Array) -> Any:
            """Return the standard deviation of a kick; 1 - f² = ε (2 - ε)."""
            return None if e is None else jnp.sqrt(e * (2 - e) * m * jnp.asarray(self.temperature, x.dtype))

        noise = jax.tree.map(spread, p, loss, masses)
        return Loss(loss, noise, self.key)


def _masses(system: SeparableHamiltonian, p: PyTree) -> PyTree:
    """Return the masses of a kinetic energy Σ p²/2m, or raise at run time if it is not one."""
    t = jnp.zeros((), jnp.result_type(*jax.tree.leaves(p)))

    def velocity(p: PyTree) -> PyTree:
        return jax.grad(lambda p: system.kinetic(t, p))(p)

    masses = jax.tree.map(lambda v: 1 / v, velocity(jax.tree.map(jnp.ones_like, p)))
    probe = _tree.spread(p)
    missed = _tree.subtract(jax.tree.map(jnp.multiply, masses, velocity(probe)), probe)
    missed = _tree.max_abs(_tree.fixed(missed)) / _tree.max_abs(probe)
    return refuse_if(
        masses,
        ~(missed <= 100 * _tree.rounding(probe)),
        "Langevin: the kinetic energy is not a sum of p_i**2 / (2 m_i) with constant masses: a momentum is missed by a "
        "relative {}. The noise of a bath is known for such energies only.",
        missed,
    )


class NoseHoover(AbstractFriction):
    r"""A thermostat without noise, whose friction is a coordinate of its own.

    $$\dot p = F - \frac{p_\eta}{Q}\, p, \qquad \dot \eta = \frac{p_\eta}{Q}, \qquad
    \dot p_\eta = p \cdot \frac{\partial T}{\partial p} - g k_B T$$

    The state of the damped system is `((q, eta), (p, p_eta))`, with scalars `eta` and `p_eta`, as a rule 0 at the
    start. The friction turns into gain while the system is too cold. $H + p_\eta^2/2Q + g k_B T \eta$ is conserved.

    Args:
        temperature: $k_B T$, in units of energy.
        inertia: $Q$, in units of energy times time squared: $g k_B T$ times the square of the response time.
        freedoms: $g$, by default the number of momenta.

    Raises:
        ArgumentError: if a number is not positive.

    Source: S. Nose, J. Chem. Phys. 81 (1984) 511; W. G. Hoover, Phys. Rev. A 31 (1985) 1695.

    Example:
        ```python
        damped = eg.Damped(system, eg.friction.NoseHoover(temperature=1.0, inertia=10.0))
        start = eg.InitialValue((q, jnp.zeros(())), (p, jnp.zeros(())))
        ```
    """

    temperature: Any
    inertia: Any
    freedoms: float | None

    def __init__(
        self,
        temperature: float | Float[Array, ""],
        inertia: float | Float[Array, ""],
        freedoms: float | None = None,
    ) -> None:
        def positive(name: str, x: Any) -> Any:
            return _checks.number("NoseHoover", name, x, _checks.positive, "it must be positive and finite")

        self.temperature, self.inertia = positive("temperature", temperature), positive("inertia", inertia)
        self.freedoms = None if freedoms is None else positive("freedoms", freedoms)

    def extended(self, system: SeparableHamiltonian) -> SeparableHamiltonian:
        return Thermostatted(system, self)

    def over_one_step(self, system: SeparableHamiltonian, h: Float[Array, ""], p: PyTree) -> "Thermostat":
        return Thermostat(system, self.inertia)


class Thermostatted(SeparableHamiltonian):
    """A system beside the coordinate of its thermostat, on which a constant force acts."""

    system: SeparableHamiltonian
    thermostat: NoseHoover

    def kinetic(self, t: Scalar, p: PyTree) -> Scalar:
        momenta, own = p
        return self.system.kinetic(t, momenta) + own**2 / (2 * self.thermostat.inertia)

    def potential(self, t: Scalar, q: PyTree, u: Any) -> Scalar:
        positions, eta = q
        freedoms = self.thermostat.freedoms
        if freedoms is None:
            freedoms = sum(x.size for x in jax.tree.leaves(positions))
        return self.system.potential(t, positions, u) + freedoms * self.thermostat.temperature * eta


class Thermostat(AbstractAction):
    """Half a kick on the thermostat, the scaling of the momenta, half a kick."""

    system: SeparableHamiltonian
    inertia: Any

    def moves(self, now: Instant) -> tuple[Move, ...]:
        def push(p: PyTree) -> PyTree:
            r"""Return the heat that the momenta hold, $p \cdot \\partial T/\\partial p$, over half a step."""
            momenta, own = p
            velocity = jax.grad(lambda x: self.system.kinetic(now.t, (x, own)))(momenta)
            products = map(jnp.multiply, jax.tree.leaves(momenta), jax.tree.leaves(velocity))
            heat = _tree.sum_of([jnp.sum(now.exact(x, -1)) for x in products])
            return jax.tree.map(lambda _: None, momenta), (0.5 * now.h * heat).astype(own.dtype)

        def scaled(p: PyTree) -> PyTree:
            momenta, own = p
            return jax.tree.map(lambda x: lost(own / self.inertia, now.h, x), momenta), None

        kick, friction = (lambda p, f=f: _tree.isolated(f, p) for f in (push, scaled))
        return Shear(kick), Scaling(friction), Shear(kick)
