"""The Hamiltonians of the recurrent units: one oscillator per unit and channel, driven by the inputs."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..systems import SeparableHamiltonian

Oscillation = Float[Array, "channels units"]


@jax.custom_jvp
def log_cosh(x: Array) -> Array:
    r"""Return $\log\cosh x$ without overflow, with $\tanh x$ for a derivative also at 0.

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


class LinearOscillators(SeparableHamiltonian):
    r"""Driven harmonic oscillators, each with a time step of its own.

    $$H = \sum_i h_i \left( \tfrac12 p_i^2 + \tfrac12 A_i q_i^2 - q_i u_i \right)$$

    The step $h_i$ multiplies the energy, so that one step of unit length of the whole is a step of $h_i$ of unit $i$.
    Channels (real and imaginary parts) share their oscillator's constants.

    Args:
        step: time steps $h$, shape (units,).
        stiffness: $A$, shape (units,); stable while $h^2 A < 4$.
    """

    step: Float[Array, " units"]
    stiffness: Float[Array, " units"]

    def kinetic(self, t: Any, p: Oscillation) -> Float[Array, ""]:
        return 0.5 * jnp.sum(self.step * jnp.sum(p**2, 0))

    def potential(self, t: Any, q: Oscillation, u: Oscillation) -> Float[Array, ""]:
        elastic = 0.5 * self.stiffness * jnp.sum(q**2, 0)
        return jnp.sum(self.step * (elastic - jnp.sum(q * u, 0)))


class NonlinearOscillators(SeparableHamiltonian):
    r"""Driven oscillators with a saturating spring, each with a time step of its own.

    $$H = \sum_i h_i \left( \tfrac12 p_i^2 + \tfrac12 \alpha_i q_i^2 + \tfrac1{a_i} \log\cosh(a_i q_i + u_i + b_i)
    \right)$$

    Args:
        step: time steps $h$, shape (units,).
        stiffness: $\alpha$, shape (units,).
        gain: $a > 0$, shape (units,); stable while $h^2 (\alpha + a) < 4$.
        bias: $b$, shape (channels, units).
    """

    step: Float[Array, " units"]
    stiffness: Float[Array, " units"]
    gain: Float[Array, " units"]
    bias: Oscillation

    def kinetic(self, t: Any, p: Oscillation) -> Float[Array, ""]:
        return 0.5 * jnp.sum(self.step * jnp.sum(p**2, 0))

    def potential(self, t: Any, q: Oscillation, u: Oscillation) -> Float[Array, ""]:
        elastic = 0.5 * self.stiffness * jnp.sum(q**2, 0)
        saturating = jnp.sum(log_cosh(self.gain[None] * q + u + self.bias), 0) / self.gain
        return jnp.sum(self.step * (elastic + saturating))
