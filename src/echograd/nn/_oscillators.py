"""The Hamiltonians of the recurrent units: one oscillator per unit and channel, driven by the inputs."""

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


class AbstractOscillators(SeparableHamiltonian):
    r"""A bank of uncoupled oscillators, each in units of its own time step $h$.

    In these units a step has length 1, $p$ stands for $h p$, and stiffness and drive are multiplied by $h^2$. The
    kinetic energy is then $\tfrac12 |p|^2$, without parameters, so an echo reads slopes of the potential only, at half
    steps. Channels (real and imaginary parts) share the constants of their oscillator.
    """

    def kinetic(self, t: Any, p: Oscillation) -> Float[Array, ""]:
        return 0.5 * jnp.sum(p**2)

    def step(self, z: State, u: Oscillation) -> State:
        """Take one leapfrog step under the drive `u`."""
        one = jnp.ones((), u.dtype)
        return _INTEGRATOR.step(StepInputs(self, u, one, 0 * one), jnp.zeros((), jnp.int32), z)

    def stepwise(self, z: State, drive: Wide) -> tuple[State, Wide]:
        """Take a block of steps one by one; return the state and the positions after every step."""

        def body(z: State, u: Any) -> tuple[State, Any]:
            z = jax.vmap(self.step)(z, u)
            return z, z[0]

        z, q = jax.lax.scan(body, (z[0].T, z[1].T), drive.T)
        return (z[0].T, z[1].T), q.T


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

    def potential(self, t: Any, q: Oscillation, u: Oscillation) -> Float[Array, ""]:
        return jnp.sum(0.5 * self.stiffness * jnp.sum(q**2, 0) - jnp.sum(q * u, 0))


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
