"""The banks of the recurrent units: one oscillator per unit and channel, driven by the inputs."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..integrators import Leapfrog, State, StepInputs
from ..systems import SeparableHamiltonian

Oscillation = Float[Array, "channels units"]
# A block of steps of a batch. Units come first, for one product per unit; time comes last, for products along it.
Wide = Float[Array, "units channels batch steps"]

_INTEGRATOR = Leapfrog()


@jax.custom_jvp
def log_cosh(x: Array) -> Array:
    r"""Return $\log\cosh x$ without overflow; its derivative is $\tanh x$, also at 0.

    Example:
        ```python
        log_cosh(jnp.asarray(1e4))  # 9999.307, where jnp.log(jnp.cosh(1e4)) is inf
        ```
    """
    size = jnp.abs(x)
    return size + jnp.log1p(jnp.exp(-2 * size)) - jnp.log(jnp.asarray(2, x.dtype))


@log_cosh.defjvp
def _log_cosh_jvp(primals: Any, tangents: Any) -> Any:
    (x,), (dx,) = primals, tangents
    return log_cosh(x), jnp.tanh(x) * dx


class AbstractBank(eqx.Module):
    """A bank of uncoupled oscillators, each in units of its own time step $h$.

    In these units a step has length 1, $p$ stands for $h p$, and stiffness and drive are multiplied by $h^2$. Channels
    (real and imaginary parts) share the constants of their oscillator.
    """

    @abc.abstractmethod
    def step(self, z: State, u: Oscillation) -> State:
        """Take one step under the drive `u`."""

    def stepwise(self, z: State, drive: Wide) -> tuple[State, Wide]:
        """Take a block of steps one by one; return the state and the positions after every step."""

        def body(z: State, u: Any) -> tuple[State, Any]:
            z = jax.vmap(self.step)(z, u)
            return z, z[0]

        z, q = jax.lax.scan(body, (z[0].T, z[1].T), drive.T)
        return (z[0].T, z[1].T), q.T


class AbstractOscillators(AbstractBank, SeparableHamiltonian):
    r"""A bank of oscillators with an energy, moved by the leapfrog.

    In units of the time step the kinetic energy is $\tfrac12 |p|^2$, without parameters. So an echo reads slopes of the
    potential only, at half steps.
    """

    def kinetic(self, t: Any, p: Oscillation) -> Float[Array, ""]:
        return 0.5 * jnp.sum(p**2)

    def step(self, z: State, u: Oscillation) -> State:
        """Take one leapfrog step under the drive `u`."""
        one = jnp.ones((), u.dtype)
        return _INTEGRATOR.step(StepInputs(self, u, one, 0 * one), jnp.zeros((), jnp.int32), z)


class LinearOscillators(AbstractOscillators):
    r"""Driven harmonic oscillators that rotate by an angle $w$ in every step.

    $$H = \sum_i \tfrac12 p_i^2 + \tfrac12 a_i q_i^2 - q_i u_i, \qquad a_i = h_i^2 A_i = 4 \sin^2(w_i/2) < 4$$

    A leapfrog step is a rotation by $w/2$ in the plane of $\hat q = 2 \sin(w/2)\, q$ and $\hat p = \cos(w/2)\, p$, a
    kick $\hat p \leftarrow \hat p + u$, and another rotation by $w/2$. So

    $$q_{t+1} = \sum_{s \le t} \frac{\sin w(t - s + \frac12)}{2 \sin(w/2)}\, u_s.$$

    Args:
        angle: rotation angles $w$ per step, shape (units,), between 0 and π.
    """

    angle: Float[Array, " units"]

    @property
    def stiffness(self) -> Float[Array, " units"]:
        """The stiffness $a = h^2 A$."""
        return (2 * jnp.sin(0.5 * self.angle)) ** 2

    @property
    def gain(self) -> Float[Array, " units"]:
        r"""The ratio $q / \hat q$."""
        return 0.5 / jnp.sin(0.5 * self.angle)

    @property
    def lead(self) -> Float[Array, " units"]:
        """The angle by which a kick has turned at the end of its step."""
        return 0.5 * self.angle

    @property
    def frame(self) -> tuple[Float[Array, " units"], Float[Array, " units"]]:
        r"""The numbers in $\hat p = m q + n p$, which are $m = 0$ and $n = \cos(w/2)$."""
        return jnp.zeros_like(self.angle), jnp.cos(0.5 * self.angle)

    def potential(self, t: Any, q: Oscillation, u: Oscillation) -> Float[Array, ""]:
        return jnp.sum(0.5 * self.stiffness * jnp.sum(q**2, 0) - jnp.sum(q * u, 0))


class DampedOscillators(AbstractBank):
    r"""Driven harmonic oscillators with linear friction: half of the damping, a leapfrog step, half of the damping.

    With the damping factor $f = e^{-\gamma h/2} = e^{-\sigma}$ and the stiffness $a = h^2 A$ a step is

    $$p \leftarrow f p, \quad q \leftarrow q + \tfrac12 p, \quad p \leftarrow p + u - a q, \quad
    q \leftarrow q + \tfrac12 p, \quad p \leftarrow f p.$$

    Without a drive its eigenvalues are $e^{-\sigma \pm i \varphi}$ with

    $$\cos\varphi = \cosh\sigma \, (1 - a/2), \qquad a = 2 (1 - \cos\varphi / \cosh\sigma) \in (0, 4).$$

    The rotation angle $\varphi$ and the decay $\sigma$ are the constants of the oscillators. So every pair of values is
    stable and underdamped: all eigenvalues of the unit disc except real ones. In suitable coordinates a step is a
    rotation by $\varphi$ and a contraction by $\rho = f$, so

    $$q_{t+1} = \sum_{s \le t} \rho^{t - s}\, g \sin(\varphi (t - s) + \psi)\, u_s, \qquad
    g\, e^{i\psi} = \frac{e^{i\varphi} + \rho}{2 \sin\varphi}.$$

    Args:
        angle: rotation angles $\varphi$ per step, shape (units,), between 0 and π.
        decay: decay rates $\sigma \ge 0$ of the amplitude per step, shape (units,).

    Source: the unit of damped oscillators is that of J. Boyer, T. K. Rusch and D. Rus, arXiv 2505.12171; their
    integrator is implicit-explicit. The scheme and its response are echograd's own.
    """

    angle: Float[Array, " units"]
    decay: Float[Array, " units"]

    @property
    def factor(self) -> Float[Array, " units"]:
        r"""The damping factor $f = \rho$ of half a step."""
        return jnp.exp(-self.decay)

    @property
    def _softening(self) -> Float[Array, " units"]:
        r"""The number $1 - 1/\cosh\sigma$, accurate where it is small, and so is its derivative."""
        return jnp.tanh(self.decay) * jnp.tanh(0.5 * self.decay)

    @property
    def stiffness(self) -> Float[Array, " units"]:
        """The stiffness $a = h^2 A$."""
        soft = self._softening
        return 4 * (1 - soft) * jnp.sin(0.5 * self.angle) ** 2 + 2 * soft

    @property
    def slack(self) -> Float[Array, " units"]:
        """The distance $2 - a/2$ from instability, accurate where it is small."""
        soft = self._softening
        return 2 * (1 - soft) * jnp.cos(0.5 * self.angle) ** 2 + soft

    @property
    def gain(self) -> Float[Array, " units"]:
        """The gain $g$ from a kick to the position."""
        return jnp.sqrt((1 + self.factor**2) * self.slack) / (2 * jnp.sin(self.angle))

    @property
    def lead(self) -> Float[Array, " units"]:
        r"""The angle $\psi$ by which a kick has turned at the end of its step."""
        cosine = jnp.cos(0.5 * self.angle)
        return jnp.arctan2(2 * jnp.sin(0.5 * self.angle) * cosine, 2 * cosine**2 + jnp.expm1(-self.decay))

    @property
    def frame(self) -> tuple[Float[Array, " units"], Float[Array, " units"]]:
        r"""The numbers in $\hat p = m q + n p$, which a step rotates into $\hat q = q / g$."""
        scale, slack = jnp.sqrt(1 + self.factor**2), jnp.sqrt(self.slack)
        return 2 * jnp.cos(self.angle) * jnp.tanh(self.decay) / (scale * slack), slack / scale

    def readings(self, overlap: Float[Array, " units"], lost: Float[Array, " units"]) -> "DampedOscillators":
        r"""Return the cotangents of the constants, from sums along a path.

        Args:
            overlap: $-(2 - a/2)\, dC/da$ at a fixed factor.
            lost: $\tfrac14 (1 + f^{-2})\, dC/d\log f$ at a fixed stiffness.
        """
        kept = self.factor
        bar_stiffness = -overlap / self.slack
        sech = 1 - self._softening
        bar_angle = 2 * sech * jnp.sin(self.angle) * bar_stiffness
        bar_decay = 2 * sech * jnp.tanh(self.decay) * jnp.cos(self.angle) * bar_stiffness
        return DampedOscillators(bar_angle, bar_decay - 4 * kept**2 / (1 + kept**2) * lost)

    def end_readings(self, first: State, bar_first: State, last: State, bar_last: State) -> "DampedOscillators":
        r"""Return what `readings` omits if a path does not begin and end at rest, from the states at its ends.

        The damping acts twice at every state of a path, but once at its ends. With $\lambda$ for the cotangent of $p$,
        these terms of $dC/d\sigma$ are $\tfrac{4}{1 + f^2} \lambda_0 (f q_0 - \tfrac14 (1 - f^2) p_0)$ at the first
        state, where they include the end of a summation by parts, and $-\lambda_N p_N$ at the last one.

        Args:
            first: the initial state, arrays of shape (units, channels, batch).
            bar_first: the cotangent of the initial state.
            last: the final state.
            bar_last: the cotangent of the final state.
        """
        kept = self.factor
        at_first = [jnp.sum(bar_first[1] * x, (1, 2)) for x in first]
        loss = 4 * kept * at_first[0] + jnp.expm1(-2 * self.decay) * at_first[1]
        bar_decay = loss / (1 + kept**2) - jnp.sum(bar_last[1] * last[1], (1, 2))
        return DampedOscillators(jnp.zeros_like(self.angle), bar_decay)

    def step(self, z: State, u: Oscillation) -> State:
        (q, p), loss, stiffness = z, jnp.expm1(-self.decay)[None], self.stiffness[None]
        p = p + loss * p  # rounding p, not f: a rounded factor would change the decay rate
        q = q + 0.5 * p
        p = p + (u - stiffness * q)
        q = q + 0.5 * p
        return q, p + loss * p


class NonlinearOscillators(AbstractOscillators):
    r"""Driven oscillators with a saturating spring.

    $$H = \sum_i \tfrac12 p_i^2 + \tfrac12 \alpha_i q_i^2 + \tfrac{\kappa_i}{a_i} \log\cosh(a_i q_i + u_i + b_i)$$

    Args:
        stiffness: $\alpha$ times $h^2$, shape (units,).
        strength: $\kappa = h^2$, shape (units,).
        gain: $a > 0$, shape (units,); stable while $\alpha + \kappa a < 4$.
        bias: $b$, shape (channels, units).
        kernel: whether the loop over time is one GPU kernel.
    """

    stiffness: Float[Array, " units"]
    strength: Float[Array, " units"]
    gain: Float[Array, " units"]
    bias: Oscillation
    kernel: bool = eqx.field(static=True, default=False)

    def potential(self, t: Any, q: Oscillation, u: Oscillation) -> Float[Array, ""]:
        elastic = 0.5 * self.stiffness * jnp.sum(q**2, 0)
        saturating = jnp.sum(log_cosh(self.gain[None] * q + u + self.bias), 0)
        return jnp.sum(elastic + self.strength / self.gain * saturating)
