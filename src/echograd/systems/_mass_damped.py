"""Damping proportional to mass: Hamiltonians with explicit time dependence, in two sets of variables."""

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
    r"""A separable system $H_0 = T + V$ with damping proportional to mass: $L = e^{\gamma t} L_0$.

    $$H = e^{\gamma t}\, T(t, e^{-\gamma t} p) + e^{\gamma t}\, V(t, q, u), \qquad
    \frac{d}{dt} \pi = -\frac{\partial V}{\partial q} - \gamma \pi, \quad \pi = e^{-\gamma t} p$$

    Here $\pi$ is the momentum of $H_0$, mass times velocity if $T$ is quadratic. The coordinates are the physical ones.
    The momentum $p$ in `solve` is the canonical one; `mechanical` converts it to $\pi$. At $t = 0$ the two are equal.
    `InitialValue(q, v=...)` takes physical velocities at any time.

    This energy is even in the momentum if $T$ is, and depends on time explicitly. An echo plays explicit time
    dependence backwards, so the ordinary `Echo()` is exact on it, also for nonlinear forces and for the gradient with
    respect to the rate. In the variables $(q, \pi)$ the echo is the machine with its damping turned into gain, nudged
    and read with the weight $e^{\gamma t}$: both are the same map. `Envelope` is the same motion without gain.

    The cost is dynamic range. Parts of the state that do not decay (a driven response, an equilibrium off the origin)
    cover the decayed memory of the start. So from one mark to the next, a sixteenth of the run, an echo loses a factor
    $e^{\gamma T/32}$ in precision. Every echo measures this, and raises if the loss is too large.

    Damping that is not proportional to mass has no such form: see `LinearDamped` and `Reciprocal`.

    Args:
        system: the undamped system; its trainable leaves stay trainable.
        rate: damping rate $\gamma$, one number, in inverse units of time; negative for gain. An array is trainable, a
            Python number is constant.

    Raises:
        ArgumentTypeError: if the system is not a `SeparableHamiltonian`.
        ArgumentError: if the rate is not one finite number.
        RunError: (at run time) if $e^{\gamma |t|}$ overflows the dtype.

    Source: P. Caldirola, Nuovo Cimento 18 (1941) 393; E. Kanai, Prog. Theor. Phys. 3 (1948) 440; damping by gain:
    arXiv 2506.06248 and appendix C of "Unifying Physical Backpropagation" (Boesch, Gediz, Tureci).

    Example:
        ```python
        damped = eg.MassDamped(system, rate=jnp.asarray(0.3))
        sol = eg.solve(damped, eg.InitialValue(q, v=p), dt=0.01, steps=1000)  # an exact echo
        velocity_times_mass = jax.vmap(damped.mechanical)(sol.t, sol.p)
        ```
    """

    system: SeparableHamiltonian
    rate: Any

    def __init__(self, system: SeparableHamiltonian, rate: float | Float[Array, ""]) -> None:
        self.system, self.rate = system, _rate("MassDamped", system, rate)

    def mechanical(self, t: Scalar, p: PyTree) -> PyTree:
        r"""Return $\pi = e^{-\gamma t} p$, the momentum of the undamped system, from the canonical momentum."""
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
    r"""The motion of `MassDamped` in envelope variables: an undamped system, without gain.

    $$x = e^{\gamma t/2} q, \quad y = e^{\gamma t/2} (\pi + \tfrac\gamma2 M q), \qquad
    H = T(y) + e^{\gamma t}\, V(t, e^{-\gamma t/2} x, u) - \tfrac{\gamma^2}{8}\, x \cdot M x$$

    In these variables the damping becomes springs that change in time. The echo plays them backwards like any explicit
    time dependence, so a machine that cannot turn damping into gain can run the echo, too. The ordinary `Echo()` is
    exact, also for nonlinear forces and for the gradient with respect to the rate. The discrete map differs from that
    of `MassDamped` but has the same order, and loses precision likewise.

    Args:
        system: the undamped system, with $T = \sum_i p_i^2 / 2 m_i$; its trainable leaves stay trainable.
        rate: damping rate $\gamma$, as for `MassDamped`.

    Raises:
        ArgumentTypeError: if the system is not a `SeparableHamiltonian`.
        ArgumentError: if the rate is not one finite number.
        RunError: (at run time) if the kinetic energy is not $\sum_i p_i^2 / 2 m_i$ with constant masses, or if
            $e^{\gamma |t|}$ overflows the dtype.

    Source: appendix C of "Unifying Physical Backpropagation" (Boesch, Gediz, Tureci) treats the same systems by gain.

    Example:
        ```python
        envelope = eg.Envelope(system, rate=jnp.asarray(0.3))
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
            "Envelope: the kinetic energy is not a sum of p_i**2 / (2 m_i) with constant masses, so there are no "
            "envelope variables. Use MassDamped(system, rate), which takes any kinetic energy.",
        )

    def _momentum(self, t: Scalar, v: PyTree) -> PyTree:
        """Return M v. The velocities of unit momenta are the inverse masses."""
        ones = jax.tree.map(jnp.ones_like, v)
        return jax.tree.map(lambda v, w: v / w, v, jax.grad(lambda p: self.system.kinetic(t, p))(ones))


def _rate(name: str, system: Any, rate: Any) -> Any:
    """Return the rate, a Python float or an array, after checking the system, too."""
    if not isinstance(system, SeparableHamiltonian):
        raise ArgumentTypeError(
            f"{name}: the system is a {type(system).__name__}, not a SeparableHamiltonian. For a Lagrangian multiply "
            "it by exp(rate * t) yourself; for general damping see LinearDamped and Reciprocal."
        )
    why = "the rate must be one finite number. For different rates of different masses see LinearDamped"
    rate = _checks.number(name, "rate", rate, what=why)
    if not isinstance(rate, float) and not jnp.issubdtype(rate.dtype, jnp.floating):
        raise ArgumentError(
            f"{name}: rate={_checks.shown(rate)} is an array of integers, which cannot be trained; {why}."
        )
    return rate


def _within_range(z: Any, rate: Any, start: Scalar, stop: Scalar) -> Any:
    """Return `z`, or raise at run time if exp(rate t) overflows the dtype."""
    exponent = jnp.abs(rate * jnp.maximum(jnp.abs(start), jnp.abs(stop)))
    limit = math.log(float(jnp.finfo(exponent.dtype).max)) - 10  # room for the energy that it multiplies
    return eqx.error_if(
        z,
        ~(exponent <= limit),
        "MassDamped, Envelope: exp(rate * t) leaves the range of the dtype (rate * t beyond 78 in float32, 699 in "
        "float64), so the canonical momentum exp(rate * t) * mass * velocity overflows. Shorten the run, start it at "
        "t0 = 0, use float64, or use Reciprocal() if the system is linear: it does not need this range.",
    )


def _close(a: PyTree, b: PyTree) -> Any:
    size = _tree.max_abs(b)
    return _tree.max_abs(_tree.subtract(a, b)) <= 100 * float(jnp.finfo(size.dtype).eps) * size
