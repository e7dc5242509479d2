"""Recurrent units of linear, nonlinear and damped oscillators."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from .._internal import _checks
from ..gradients import AbstractGradient
from ._arguments import checked_angles, checked_decays
from ._hru import (
    AbstractHarmonicHRU,
    AbstractHRU,
    checked_unit,
    half_chord,
    initial_angles,
    initial_projections,
    log_uniform,
    rotation,
)
from ._oscillators import DampedOscillators, LinearOscillators, NonlinearOscillators


class LinearHRU(AbstractHarmonicHRU):
    r"""Linear Hamiltonian recurrent unit: driven harmonic oscillators.

    $$H = \tfrac12 |p|^2 + \tfrac12 q^{\sf T} A q - q^{\sf T} B x, \qquad A = (2\sin(w/2)/h)^2 \ge 0 \text{ diagonal}$$

    Args:
        inputs: number of input features.
        outputs: number of output features. With as many outputs as inputs the unit has a diagonal feedthrough $D$.
        units: number of oscillators.
        complex: complex read-in and read-out: every oscillator has a real and an imaginary part.
        angles: bounds of the initial rotation angles per step, log-uniform: angular frequency × sampling interval, in
            radians.
        gradient: `Echo()` (default) or `Backprop()`.
        key: random key.

    Raises:
        ArgumentError: for sizes below 1 or angles outside (0, π); when called, for a wrong shape.
        ArgumentTypeError: if an argument has the wrong type; when called, for a dtype other than the parameters'.

    Source: G. Pourcel and M. Ernoult, arXiv 2506.05259, section 4; T. K. Rusch and D. Rus, arXiv 2410.03943.

    Example:
        ```python
        unit = eg.nn.LinearHRU(3, 8, units=16, key=jax.random.key(0))
        y = unit(jnp.ones((100, 3)))  # (100, 8)
        ```
    """

    angle: Float[Array, " units"]
    log_step: Float[Array, " units"]
    read_in: Float[Array, "channels units inputs"]
    read_out: Float[Array, "outputs channels units"]
    feedthrough: Float[Array, " outputs"] | None
    gradient: AbstractGradient

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        units: int = 64,
        complex: bool = True,
        angles: tuple[float, float] = (0.01, 2.0),
        gradient: AbstractGradient | None = None,
        key: PRNGKeyArray,
    ) -> None:
        self.gradient = checked_unit("LinearHRU", complex, gradient, key, inputs=inputs, outputs=outputs, units=units)
        angles = checked_angles("LinearHRU", angles)
        angle_key, key = jax.random.split(key)
        self.angle = initial_angles(units, angles, angle_key)
        # The initial stiffness is 1, so the response to a drive is of order w per step.
        self.log_step = jnp.log(half_chord(self.angle))
        self.read_in, self.read_out, self.feedthrough = initial_projections(inputs, outputs, units, 1 + complex, key)

    @property
    def system(self) -> LinearOscillators:
        return LinearOscillators(rotation(self.angle))


class NonlinearHRU(AbstractHRU):
    r"""Nonlinear Hamiltonian recurrent unit: driven oscillators with a saturating spring.

    $$H = \tfrac12 |p|^2 + \tfrac12 \alpha |q|^2 + \textstyle\sum_i \log\cosh(a_i q_i + (Bx)_i + b_i) / a_i$$

    The largest stiffness of the spring is $\alpha + a$, with $h^2 (\alpha + a) = 4 \sin^2(w/2) < 4$. `balance` is the
    logit of the share of $a$ in it, which is kept between 5 % and 95 % so that $a$ stays away from 0.

    Args:
        inputs: number of input features.
        outputs: number of output features. With as many outputs as inputs the unit has a diagonal feedthrough $D$.
        units: number of oscillators.
        complex: complex read-in and read-out: every oscillator has a real and an imaginary part.
        angles: bounds of the initial rotation angles per step, log-uniform, in radians. Fast driven oscillators with a
            saturating spring are chaotic: with angles up to 2 a gradient grows by ten orders of magnitude in 1000
            steps.
        gradient: `Echo()` (default) or `Backprop()`.
        kernel: run the loop over time, in both directions, as one GPU kernel (Pallas and Triton) instead of a scan of
            many small kernels. The numbers are the same. On other devices the kernel is interpreted, which is slow.
        key: random key.

    Raises:
        ArgumentError: for sizes below 1 or angles outside (0, π); when called, for a wrong shape.
        ArgumentTypeError: if an argument has the wrong type; when called, for a dtype other than the parameters'.

    Source: G. Pourcel and M. Ernoult, arXiv 2506.05259, section 4; T. K. Rusch and S. Mishra, arXiv 2103.05487.

    Example:
        ```python
        unit = eg.nn.NonlinearHRU(3, 8, units=16, key=jax.random.key(0))
        y = unit(jnp.ones((100, 3)))  # (100, 8)
        ```
    """

    angle: Float[Array, " units"]
    log_step: Float[Array, " units"]
    balance: Float[Array, " units"]
    bias: Float[Array, "channels units"]
    read_in: Float[Array, "channels units inputs"]
    read_out: Float[Array, "outputs channels units"]
    feedthrough: Float[Array, " outputs"] | None
    gradient: AbstractGradient
    kernel: bool = eqx.field(static=True)

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        units: int = 64,
        complex: bool = True,
        angles: tuple[float, float] = (0.01, 0.2),
        gradient: AbstractGradient | None = None,
        kernel: bool = False,
        key: PRNGKeyArray,
    ) -> None:
        self.gradient = checked_unit(
            "NonlinearHRU", complex, gradient, key, inputs=inputs, outputs=outputs, units=units
        )
        angles = checked_angles("NonlinearHRU", angles)
        angle_key, balance_key, key = jax.random.split(key, 3)
        self.angle = initial_angles(units, angles, angle_key)
        self.log_step = jnp.log(half_chord(self.angle))
        self.balance = jax.random.uniform(balance_key, (units,), minval=-1, maxval=1)
        self.bias = jnp.zeros((1 + complex, units))
        self.read_in, self.read_out, self.feedthrough = initial_projections(inputs, outputs, units, 1 + complex, key)
        self.kernel = _checks.flag("NonlinearHRU", "kernel", kernel)

    @property
    def system(self) -> NonlinearOscillators:
        strength = self.time_step**2
        total = half_chord(self.angle) ** 2
        share = 0.05 + 0.9 * jax.nn.sigmoid(self.balance)
        return NonlinearOscillators((1 - share) * total, strength, share * total / strength, self.bias, self.kernel)

    @property
    def drive_scale(self) -> Float[Array, " units"]:
        return jnp.ones_like(self.log_step)


class DampedHRU(AbstractHarmonicHRU):
    r"""Damped recurrent unit: driven harmonic oscillators with a trainable friction each.

    $$\ddot q + \gamma \dot q + A q = B x, \qquad \gamma = 2\sigma/h \ge 0, \qquad h^2 A = 2 - 2 \cos w / \cosh\sigma$$

    A step is half of the damping, a leapfrog step, and half of the damping. An oscillator rotates by the angle $w$ per
    step and its amplitude falls by the factor $e^{-\sigma}$. Both are trained. The stiffness follows from them, so any
    values are stable, $0 < h^2 A < 4$, and underdamped: an overdamped oscillator would be two real decays without a
    frequency. Without damping, $\sigma \to 0$, the unit is a `LinearHRU`.

    The default gradient `Reciprocal()` is exact. The machine loses energy, so it cannot be run back. But it is linear
    and reciprocal: driven from rest by the reversed errors, the same lossy machine gives the adjoint, without any gain.
    The backward pass keeps the states between blocks of steps and runs every block again.

    Args:
        inputs: number of input features.
        outputs: number of output features. With as many outputs as inputs the unit has a diagonal feedthrough $D$.
        units: number of oscillators.
        complex: complex read-in and read-out: every oscillator has a real and an imaginary part.
        angles: bounds of the initial rotation angles per step, log-uniform: angular frequency × sampling interval, in
            radians.
        decays: bounds of the initial decay rates $\sigma$ per step, log-uniform. An oscillator remembers $1/\sigma$
            steps: for sequences of N steps, a lower bound of 1/N covers the whole sequence.
        gradient: `Reciprocal()` (default) or `Backprop()`.
        key: random key.

    Raises:
        ArgumentError: for sizes below 1, angles outside (0, π) or decays that are not positive; when called, for a
            wrong shape.
        ArgumentTypeError: if an argument has the wrong type, or the gradient is an echo; when called, for a dtype other
            than the parameters'.

    Source: J. Boyer, T. K. Rusch and D. Rus, arXiv 2505.12171 (oscillators with trainable damping); "Unifying Physical
    Backpropagation" (Boesch, Gediz, Tureci), theorem 6.1a (the gradient).

    Example:
        ```python
        unit = eg.nn.DampedHRU(3, 8, units=16, key=jax.random.key(0))
        y = unit(jnp.ones((100, 3)))  # (100, 8)
        ```
    """

    angle: Float[Array, " units"]
    log_decay: Float[Array, " units"]
    log_step: Float[Array, " units"]
    read_in: Float[Array, "channels units inputs"]
    read_out: Float[Array, "outputs channels units"]
    feedthrough: Float[Array, " outputs"] | None
    gradient: AbstractGradient

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        units: int = 64,
        complex: bool = True,
        angles: tuple[float, float] = (0.01, 2.0),
        decays: tuple[float, float] = (1e-4, 0.1),
        gradient: AbstractGradient | None = None,
        key: PRNGKeyArray,
    ) -> None:
        self.gradient = checked_unit(
            "DampedHRU", complex, gradient, key, lossy=True, inputs=inputs, outputs=outputs, units=units
        )
        angles, decays = checked_angles("DampedHRU", angles), checked_decays("DampedHRU", decays)
        decay_key, angle_key, key = jax.random.split(key, 3)
        self.angle = initial_angles(units, angles, angle_key)
        self.log_decay = jnp.log(log_uniform(units, decays, decay_key))
        # The initial stiffness is 1, so the response to a drive is of order w per step.
        self.log_step = 0.5 * jnp.log(self.system.stiffness)
        self.read_in, self.read_out, self.feedthrough = initial_projections(inputs, outputs, units, 1 + complex, key)

    @property
    def damping(self) -> Float[Array, " units"]:
        r"""The damping rate $\gamma = 2\sigma/h$ of every oscillator."""
        return 2 * self.system.decay / self.time_step

    @property
    def system(self) -> DampedOscillators:
        return DampedOscillators(rotation(self.angle), jnp.exp(self.log_decay))
