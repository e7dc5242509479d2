"""Damping in proportion to mass: an ordinary Hamiltonian with explicit time dependence, in two sets of variables."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._internal import _checks, _tree
from .._internal._errors import ArgumentError, ArgumentTypeError
from ._base import Scalar, SeparableHamiltonian


class MassDamped(SeparableHamiltonian):
    r"""A separable system $H_0 = T + V$ damped in proportion to its mass: $L = e^{\gamma t} L_0$.

    $$H = e^{\gamma t}\, T(t, e^{-\gamma t} p) + e^{\gamma t}\, V(t, q, u), \qquad
    \frac{d}{dt} \pi = -\frac{\partial V}{\partial q} - \gamma \pi, \quad \pi = e^{-\gamma t} p$$

    with $\pi$ the momentum of $H_0$, a mass times a velocity where $T$ is quadratic. The coordinates are the physical
    ones. The momentum $p$ that `solve` works with is the canonical one; `mechanical` takes it to $\pi$, and at $t = 0$
    the two are the same. `InitialValue(q, v=...)` takes physical velocities at any time.

    This energy is even in the momentum whenever $T$ is, and depends on time explicitly. An echo plays explicit time
    dependence backwards, so the ordinary `Echo()` is exact on it, nonlinear forces and the gradient with respect to
    the rate included. Seen in the variables $(q, \pi)$ that echo is the machine with its damping turned into gain,
    nudged and read with the weight $e^{\gamma t}$: the two are one map. `Envelope` is the same motion without any gain.
    What it costs is dynamic range: whatever does not decay (a driven response, an equilibrium off the origin) covers
    what the start has left behind, so from one mark to the next, a sixteenth of the run, an echo loses a factor
    $e^{\gamma T/32}$ in precision. Every echo measures this, and raises if it is too much.

    A damping that is not proportional to mass has no such form: see `LinearDamped` and `Reciprocal`.

    Args:
        system: the undamped system; its trainable leaves stay trainable.
        rate: damping rate $\gamma$, one number, in inverse units of time. Negative for gain. An array is trainable, a
            Python number is a constant.

    Raises:
        TypeError: if the system is not a `SeparableHamiltonian`.
        ValueError: if the rate is not one finite number.
        RuntimeError: (at run time) if $e^{\gamma |t|}$ does not fit the dtype.

    Source: P. Caldirola, Nuovo Cimento 18 (1941) 393; E. Kanai, Prog. Theor. Phys. 3 (1948) 440; damping by gain:
    arXiv 2506.06248 and appendix C of "Unifying Physical Backpropagation" (Boesch, Gediz, Tureci).

    Example:
        ```python
        damped = eg.MassDamped(Chain(jnp.ones(7)), rate=jnp.asarray(0.3))
        sol = eg.solve(damped, eg.InitialValue(q, v=v), dt=0.01, steps=1000)  # an exact echo
        velocity_times_mass = jax.vmap(damped.mechanical)(sol.t, sol.p)
        ```
    """

    system: SeparableHamiltonian
    rate: Any

    def __init__(self, system: SeparableHamiltonian, rate: float | Float[Array, ""]) -> None:
        self.system, self.rate = system, _rate("MassDamped", system, rate)

    def mechanical(self, t: Scalar, p: PyTree) -> PyTree:
        r"""Return $\pi = e^{-\gamma t} p$, the momentum of the undamped system, from the canonical one."""
        return _tree.scale(jnp.exp(-self.rate * t), p)

    def kinetic(self, t: Scalar, p: PyTree) -> Scalar:
        return jnp.exp(self.rate * t) * self.system.kinetic(t, self.mechanical(t, p))

    def potential(self, t: Scalar, q: PyTree, u: Any) -> Scalar:
        return jnp.exp(self.rate * t) * self.system.potential(t, q, u)

    def mirror(self, q: PyTree) -> PyTree:
        return self.system.mirror(q)

    def mirror_input(self, u: Any) -> Any:
        return self.system.mirror_input(u)

    def admitted(self, z: Any, start: Scalar, stop: Scalar) -> Any:
        return _within_range(self.system.admitted(z, start, stop), self.rate, start, stop)


class Envelope(SeparableHamiltonian):
    r"""The same damped motion as `MassDamped`, in the variables of its envelope: an undamped machine, without gain.

    $$x = e^{\gamma t/2} q, \quad y = e^{\gamma t/2} (\pi + \tfrac\gamma2 M q), \qquad
    H = T(y) + e^{\gamma t}\, V(t, e^{-\gamma t/2} x, u) - \tfrac{\gamma^2}{8}\, x \cdot M x$$

    The damping is compiled away: springs that change in time are all that is left of it, played backwards in the echo
    like any explicit time dependence, so a machine that cannot turn damping into gain can take the echo too. The
    ordinary `Echo()` is exact, nonlinear forces and the gradient with respect to the rate included. As a discrete map
    it is another one than `MassDamped`, of the same order. It loses precision as that does.

    Args:
        system: the undamped system, with $T = \sum_i p_i^2 / 2 m_i$; its trainable leaves stay trainable.
        rate: damping rate $\gamma$, as for `MassDamped`.

    Raises:
        TypeError: if the system is not a `SeparableHamiltonian`.
        ValueError: if the rate is not one finite number.
        RuntimeError: (at run time) if the kinetic energy is another function of the momentum, or changes in time; if
            $e^{\gamma |t|}$ does not fit the dtype.

    Source: appendix C of "Unifying Physical Backpropagation" (Boesch, Gediz, Tureci) treats the same systems by gain.

    Example:
        ```python
        envelope = eg.Envelope(Chain(jnp.ones(7)), rate=jnp.asarray(0.3))
        sol = eg.solve(envelope, eg.InitialValue(*envelope.enveloped(0.0, q, p)), dt=0.01, steps=1000)
        q, p = jax.vmap(envelope.physical)(sol.t, sol.q, sol.p)
        ```
    """

    system: SeparableHamiltonian
    rate: Any

    def __init__(self, system: SeparableHamiltonian, rate: float | Float[Array, ""]) -> None:
        self.system, self.rate = system, _rate("Envelope", system, rate)

    def enveloped(self, t: Scalar, q: PyTree, p: PyTree) -> tuple[PyTree, PyTree]:
        r"""Return $(x, y)$ from the physical coordinates and momenta $(q, \pi)$."""
        drag = _tree.scale(0.5 * self.rate, self._momentum(t, q))
        grown = jnp.exp(0.5 * self.rate * t)
        return _tree.scale(grown, q), _tree.scale(grown, _tree.add(p, drag))

    def physical(self, t: Scalar, x: PyTree, y: PyTree) -> tuple[PyTree, PyTree]:
        r"""Return the physical coordinates and momenta $(q, \pi)$ from $(x, y)$; the inverse of `enveloped`."""
        q, p = (_tree.scale(jnp.exp(-0.5 * self.rate * t), z) for z in (x, y))
        return q, _tree.subtract(p, _tree.scale(0.5 * self.rate, self._momentum(t, q)))

    def kinetic(self, t: Scalar, p: PyTree) -> Scalar:
        return self.system.kinetic(t, p)

    def potential(self, t: Scalar, q: PyTree, u: Any) -> Scalar:
        grown = jnp.exp(self.rate * t)
        spring = self.system.potential(t, _tree.scale(jnp.exp(-0.5 * self.rate * t), q), u)
        return grown * spring - 0.125 * self.rate**2 * _tree.dot(q, self._momentum(t, q))

    def mirror(self, q: PyTree) -> PyTree:
        return self.system.mirror(q)

    def mirror_input(self, u: Any) -> Any:
        return self.system.mirror_input(u)

    def admitted(self, z: Any, start: Scalar, stop: Scalar) -> Any:
        z = _within_range(self.system.admitted(z, start, stop), self.rate, start, stop)
        probe = _tree.spread(z[1])
        wrong = jnp.asarray(False)
        for t in (start, stop):
            v = jax.grad(lambda p, t=t: self.system.kinetic(t, p))(probe)
            wrong |= ~_close(self._momentum(start, v), probe)
        return eqx.error_if(
            z,
            wrong,
            "Envelope: the kinetic energy is not a sum of p_i**2 / (2 m_i) with constant masses, so the damping cannot "
            "be taken into the variables. Use MassDamped(system, rate), which takes any kinetic energy.",
        )

    def _momentum(self, t: Scalar, v: PyTree) -> PyTree:
        """Return M v: mobilities are the velocities that belong to unit momenta, where every mass has its own."""
        ones = jax.tree.map(jnp.ones_like, v)
        return jax.tree.map(lambda v, w: v / w, v, jax.grad(lambda p: self.system.kinetic(t, p))(ones))


def _rate(name: str, system: Any, rate: Any) -> Any:
    """Return the rate as it is kept, a Python float or an array, for a system that can have one."""
    if not isinstance(system, SeparableHamiltonian):
        raise ArgumentTypeError(
            f"{name}: the system is a {type(system).__name__}, not a SeparableHamiltonian. For a Lagrangian multiply "
            "it by exp(rate * t) yourself; for general damping see LinearDamped and Reciprocal."
        )
    why = "the rate is one finite number. A rate of its own for every mass is a general damping: see LinearDamped"
    rate = _checks.number(name, "rate", rate, what=why)
    if not isinstance(rate, float) and not jnp.issubdtype(rate.dtype, jnp.floating):
        raise ArgumentError(
            f"{name}: rate={_checks.shown(rate)} is an array of integers, which cannot be trained; {why}."
        )
    return rate


def _within_range(z: Any, rate: Any, start: Scalar, stop: Scalar) -> Any:
    """Return `z`, or raise at run time where exp(rate t) does not fit the dtype."""
    exponent = jnp.abs(rate * jnp.maximum(jnp.abs(start), jnp.abs(stop)))
    limit = math.log(float(jnp.finfo(exponent.dtype).max)) - 10  # room for the energy that is multiplied
    return eqx.error_if(
        z,
        ~(exponent <= limit),
        "MassDamped, Envelope: exp(rate * t) leaves the range of the dtype (rate * t beyond 78 in float32, 699 in "
        "float64), so that the canonical momentum exp(rate * t) * mass * velocity cannot be held. Shorten the run, "
        "start it at t0 = 0, use float64, or use Reciprocal() if the system is linear: it needs no such range.",
    )


def _close(a: PyTree, b: PyTree) -> Any:
    size = _tree.max_abs(b)
    return _tree.max_abs(_tree.subtract(a, b)) <= 100 * float(jnp.finfo(size.dtype).eps) * size
