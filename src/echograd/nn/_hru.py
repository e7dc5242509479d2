"""The base of recurrent units: a bank of oscillators between a read-in and a read-out."""

import abc
import math
from typing import Any, ClassVar, overload

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from .._internal import _checks
from ..gradients import AbstractGradient
from ..integrators import State
from ._arguments import check_sizes, checked_gradient, checked_input, checked_state
from ._layer import AbstractLayer
from ._layout import Rows, product, reshaped
from ._oscillators import AbstractBank, DampedOscillators, LinearOscillators, Wide
from ._scannable import scannable
from ._sequence import Outer
from ._transduce import stream, transduce


class Projections(AbstractLayer):
    """The linear maps of a unit: read-in, read-out and feedthrough."""

    axis: ClassVar[int] = 2
    read_in: Float[Array, "oscillators inputs"]
    read_out: Float[Array, "outputs oscillators"]
    feedthrough: Float[Array, " outputs"] | None
    channels: int = eqx.field(static=True)

    @property
    def sizes(self) -> tuple[int, int, int]:
        outputs, oscillators = self.read_out.shape
        return oscillators // self.channels, self.channels, outputs

    def prepare(self, x: Rows) -> Rows:
        return x

    def drive(self, prepared: Rows) -> Wide:
        u = product(self.read_in, reshaped(prepared, prepared.shape[0], -1))
        return reshaped(u, -1, self.channels, *prepared.shape[1:])

    def output(self, x: Rows, prepared: Rows, q: Wide, block: Any = None) -> Rows:
        del x, block
        y = reshaped(self.read_out @ reshaped(q, self.read_out.shape[1], -1), -1, *prepared.shape[1:])
        return y if self.feedthrough is None else y + self.feedthrough[:, None, None] * prepared


class FeaturesLast(AbstractLayer):
    """The same maps for sequences with the features last, transposed block by block."""

    axis: ClassVar[int] = 1
    inner: Projections

    @property
    def sizes(self) -> tuple[int, int, int]:
        return self.inner.sizes

    def prepare(self, x: Outer) -> Rows:
        return jnp.moveaxis(x, -1, 0)

    def drive(self, prepared: Rows) -> Wide:
        return self.inner.drive(prepared)

    def output(self, x: Outer, prepared: Rows, q: Wide, block: Any = None) -> Outer:
        return jnp.moveaxis(self.inner.output(x, prepared, q, block), 0, -1)


class AbstractHRU(eqx.Module):
    r"""A Hamiltonian recurrent unit: $u_k = B x_k$ drives oscillators, $y_k = C q_{k+1} + D x_k$.

    The oscillators start at rest, or from a given state. The feedthrough $D$ is diagonal; it exists only if a unit has
    as many outputs as inputs.

    Every oscillator has a trainable time step and a trainable rotation angle $w \in (0, \pi)$ per step. They determine
    the stiffness, $h^2 A = 4 \sin^2(w/2) < 4$ without damping, so the unit is stable by construction.
    """

    angle: eqx.AbstractVar[Float[Array, " units"]]
    log_step: eqx.AbstractVar[Float[Array, " units"]]
    read_in: eqx.AbstractVar[Float[Array, "channels units inputs"]]
    read_out: eqx.AbstractVar[Float[Array, "outputs channels units"]]
    feedthrough: eqx.AbstractVar[Float[Array, " outputs"] | None]
    gradient: eqx.AbstractVar[AbstractGradient]

    @property
    def time_step(self) -> Float[Array, " units"]:
        """The time step $h$ of every oscillator."""
        return jnp.exp(self.log_step)

    @property
    @abc.abstractmethod
    def system(self) -> AbstractBank:
        """The oscillators in units of their time steps: a Hamiltonian, or a bank with friction."""

    @property
    @abc.abstractmethod
    def drive_scale(self) -> Float[Array, " units"]:
        """The factor from inputs to drives, in the same units."""

    @property
    def projections(self) -> Projections:
        """The linear maps of the unit, in the same units."""
        read_in = jnp.moveaxis(self.drive_scale[None, :, None] * self.read_in, 0, 1)
        read_out = jnp.swapaxes(self.read_out, 1, 2)
        channels, units, inputs = self.read_in.shape
        read_in = read_in.reshape(units * channels, inputs)
        return Projections(read_in, read_out.reshape(-1, units * channels), self.feedthrough, channels)

    @overload
    def __call__(
        self, x: Float[Array, "*batch steps inputs"], state: None = None
    ) -> Float[Array, "*batch steps outputs"]: ...
    @overload
    def __call__(
        self, x: Float[Array, "*batch steps inputs"], state: State
    ) -> tuple[Float[Array, "*batch steps outputs"], State]: ...
    def __call__(self, x: Float[Array, "*batch steps inputs"], state: State | None = None) -> Any:
        """Return the outputs for whole input sequences; with a `state`, return `(outputs, state)`.

        With states a long sequence can be run in chunks, each from the final state of the one before. The gradient is
        exact with respect to both states, too.

        A NaN in a sequence makes outputs of that sequence NaN: in a linear unit earlier ones too, as it works on blocks
        of steps. Other sequences of the batch are not affected. The gradient then raises at run time.

        Args:
            x: one sequence, shape (steps, inputs), or a batch, shape (batch, steps, inputs).
            state: positions and momenta before the first step, each of shape (*batch, channels, units), as
                `initial_state` and `step` return them; by default the oscillators start at rest.

        Returns:
            The outputs, shape (*batch, steps, outputs); with a `state`, also the state after the last step.

        Raises:
            ArgumentError: for a wrong shape.
            ArgumentTypeError: for a dtype other than the parameters', or if the state is not a pair of arrays.

        Example:
            ```python
            y, state = unit(jnp.ones((100, 3)), unit.initial_state())
            more, state = unit(jnp.ones((50, 3)), jax.lax.stop_gradient(state))  # truncated backpropagation
            ```
        """
        owner = type(self).__name__
        x = checked_input(owner, x, self.read_in.dtype, self.read_in.shape[-1], "batch", "steps")
        if state is not None:
            state = checked_state(owner, state, self.initial_state(), x.shape[:-2])
        if x.ndim == 2:
            return jax.tree.map(lambda x: x[0], self(*jax.tree.map(lambda x: x[None], (x, state))))
        wide = None if state is None else (state[0].T, state[1].T)
        y, final = transduce(self.system, FeaturesLast(self.projections), x, self.gradient, wide)
        return y if final is None else (y, (final[0].T, final[1].T))

    def initial_state(self, batch: int | None = None) -> State:
        """Return oscillators at rest, the first state of a stream, or of a `batch` of sequences."""
        if batch is not None:
            check_sizes(type(self).__name__, batch=batch)
        zero = jnp.zeros((*(() if batch is None else (batch,)), *self.read_in.shape[:2]), self.read_in.dtype)
        return zero, zero

    @scannable
    def step(self, state: State, u: Float[Array, " inputs"]) -> tuple[State, Float[Array, " outputs"]]:
        """Advance by one input and return the new state and the output: the streaming form of the call.

        Example:
            ```python
            state, y = jax.lax.scan(unit.step, unit.initial_state(), x)  # unit(x), streamed
            ```
        """
        u = checked_input(type(self).__name__, u, self.read_in.dtype, self.read_in.shape[-1])
        state = checked_state(type(self).__name__, state, self.initial_state())
        return stream(self.system, self.projections, state, u)


class AbstractHarmonicHRU(AbstractHRU):
    """A unit of harmonic oscillators, with or without damping."""

    @property
    @abc.abstractmethod
    def system(self) -> LinearOscillators | DampedOscillators:
        """The oscillators in units of their time steps."""

    @property
    def stiffness(self) -> Float[Array, " units"]:
        """The stiffness $A$ of every oscillator."""
        return self.system.stiffness / self.time_step**2

    @property
    def drive_scale(self) -> Float[Array, " units"]:
        return self.time_step**2


def checked_unit(
    owner: str, complex: Any, gradient: Any, key: Any, *, lossy: bool = False, **sizes: Any
) -> AbstractGradient:
    """Check the arguments of a unit, and return its gradient."""
    check_sizes(owner, **sizes)
    _checks.flag(owner, "complex", complex)
    _checks.key(owner, key)
    return checked_gradient(owner, gradient, lossy=lossy)


def log_uniform(units: int, bounds: tuple[float, float], key: PRNGKeyArray) -> Float[Array, " units"]:
    """Return random numbers that are log-uniform between two bounds."""
    low, high = bounds
    return jnp.exp(jax.random.uniform(key, (units,), minval=math.log(low), maxval=math.log(high)))


def initial_angles(units: int, angles: tuple[float, float], key: PRNGKeyArray) -> Float[Array, " units"]:
    """Return logits of rotation angles that are log-uniform between two bounds."""
    w = log_uniform(units, angles, key)
    return jnp.log(w / (math.pi - w))


def initial_projections(
    inputs: int, outputs: int, units: int, channels: int, key: PRNGKeyArray
) -> tuple[Float[Array, "channels units inputs"], Float[Array, "outputs channels units"], Array | None]:
    """Return random read-in, read-out and feedthrough that keep the variance."""
    b, c, d = jax.random.split(key, 3)
    read_in = jax.random.normal(b, (channels, units, inputs)) / math.sqrt(inputs)
    read_out = jax.random.normal(c, (outputs, channels, units)) / math.sqrt(channels * units)
    return read_in, read_out, jax.random.normal(d, (outputs,)) if inputs == outputs else None


def rotation(angle: Float[Array, " units"]) -> Float[Array, " units"]:
    r"""Return the angle $w$ by which an oscillator turns in a step, from the logit of $w/\pi$."""
    return math.pi * jax.nn.sigmoid(angle)


def half_chord(angle: Float[Array, " units"]) -> Float[Array, " units"]:
    r"""Return $2\sin(w/2)$, the stable values of $h\sqrt{A}$, from the logit of $w/\pi$."""
    return 2 * jnp.sin(0.5 * rotation(angle))
