"""The motion of oscillators through a block of steps, forward and back: step by step, or as one linear map."""

import abc
import functools
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._internal import _tree
from ..integrators import State
from ..nudge import AbstractFiniteNudge, AbstractNudge, Infinitesimal
from ..nudge._base import relative_load
from ._kernel import scan
from ._layout import product, reshaped
from ._oscillators import AbstractOscillators, LinearOscillators, NonlinearOscillators, Wide

# Steps in one matrix product of a rotation. More steps need more arithmetic; fewer make more and smaller products.
_CHUNK = 32


def motion(oscillators: AbstractOscillators, nudge: AbstractNudge, length: int) -> "AbstractMotion":
    """Return the fastest motion of these oscillators under this nudge, in blocks of `length` steps."""
    exact_if_linear = isinstance(nudge, Infinitesimal | AbstractFiniteNudge)
    if isinstance(oscillators, LinearOscillators) and exact_if_linear:
        return Rotation(oscillators, length)
    return StepByStep(oscillators, nudge, isinstance(oscillators, NonlinearOscillators) and oscillators.kernel)


class AbstractMotion(eqx.Module):
    """A way to move oscillators through blocks of steps. Its states need not be positions and momenta."""

    oscillators: eqx.AbstractVar[AbstractOscillators]

    @abc.abstractmethod
    def rest(self, oscillations: tuple[int, ...]) -> PyTree:
        """Return oscillators at rest; `oscillations` is the shape (units, channels, batch)."""

    @abc.abstractmethod
    def run(self, z: State, drive: Wide) -> tuple[State, Wide]:
        """Run a block of steps; return the state at its end, and the positions after every step."""

    @abc.abstractmethod
    def turn(self, z: State) -> State:
        """Return the time-reversed state, from which the echo starts."""

    @abc.abstractmethod
    def retrace(self, z: State, drive: Wide) -> tuple[State, Wide, Any]:
        """Run back through a block without nudges.

        Returns the state at its start, the positions after every step of the forward run, and what `respond` needs of
        the path.
        """

    @abc.abstractmethod
    def start(self, z: State) -> PyTree:
        """Return the nudged oscillators before any nudge, at the state `z`."""

    @abc.abstractmethod
    def strength(self, z: State, load: Float[Array, ""], steps: int) -> Any:
        """Return the strength β of nudges of total size `load`."""

    @abc.abstractmethod
    def respond(self, beta: Any, nudged: PyTree, path: Any, drive: Wide, push: Wide) -> tuple[PyTree, PyTree, Wide]:
        """Run back nudged by β `push`; return the oscillators, and d/dβ of the readings of parameters and drive."""

    @abc.abstractmethod
    def check(self, x: Any, beta: Any, nudged: PyTree, load: Float[Array, ""], steps: int) -> Any:
        """Return `x`, or raise at run time if the nudge is lost in rounding."""


class Rotation(AbstractMotion):
    r"""Linear oscillators, a block of steps in a few products.

    A state is the pair $z = (\hat q, \hat p)$ on the last axis. With the drive $d$ cut into chunks of steps,

    $$e = d E, \qquad s = (z_0, e)\, M, \qquad q = d A + s N,$$

    where $e$ is what the kicks of a chunk add to the state at its end, $s$ are the states between the chunks, and $q$
    the positions after every step. The echo applies the inverse rotations, which is exact to rounding. The machine is
    linear, so d/dβ of its motion is the same for any nudge. It is computed directly, without an ensemble, and it runs
    back by the transposes of the same matrices.
    """

    oscillators: LinearOscillators
    kick_to_node: Float[Array, "units chunk chunk"]  # A
    kick_to_end: Float[Array, "units chunk 2"]  # E
    start_to_node: Float[Array, "units 2 chunk"]  # N
    between: Float[Array, "units states states"]  # M

    def __init__(self, oscillators: LinearOscillators, length: int) -> None:
        self.oscillators = oscillators
        # With the barrier the backward pass makes the matrices by the same code, which is compiled once.
        sines = functools.partial(_sines, jax.lax.optimization_barrier(oscillators.angle))
        n = math.gcd(length, _CHUNK)
        step, start = np.arange(n), np.arange(length // n + 1)
        gain = oscillators.gain[:, None, None]
        # A kick comes in the middle of its step, and to turn by θ is
        # q̂ ← q̂ cos θ + p̂ sin θ, p̂ ← p̂ cos θ - q̂ sin θ.
        lag = step[None] - step[:, None]
        self.kick_to_node = gain * sines(2 * lag + 1, _SIN, lag >= 0)
        self.kick_to_end = sines(2 * (n - step[:, None]) - 1, np.array([_SIN, _COS]))
        self.start_to_node = gain * sines(2 * step + 2, np.array([[_COS], [_SIN]]))
        lag = (start[None] - start[:, None])[:, None, :, None]
        sign, kind = np.array([[1, -1], [1, 1]])[:, None], np.array([[_COS, _SIN], [_SIN, _COS]])[:, None]
        pairs = sines(2 * n * lag * sign, kind, lag >= 0)
        self.between = pairs.reshape(-1, 2 * start.size, 2 * start.size)

    def rest(self, oscillations: tuple[int, ...]) -> PyTree:
        units, channels, batch = oscillations
        return jnp.zeros((units, channels * batch, 2), self.between.dtype)

    def run(self, z: PyTree, drive: Wide) -> tuple[PyTree, Wide]:
        chunks = self._chunked(drive)
        states = product(jnp.concatenate([z, _joined(product(chunks, self.kick_to_end), z)], -1), self.between)
        return states[..., -2:], reshaped(self._positions(chunks, states), *drive.shape)

    def turn(self, z: PyTree) -> PyTree:
        # The echo applies the inverse rotation, without a flip of the momenta.
        return z

    def retrace(self, z: PyTree, drive: Wide) -> tuple[PyTree, Wide, Any]:
        chunks = self._chunked(drive)
        came = jnp.concatenate([jnp.zeros_like(z), _joined(product(chunks, self.kick_to_end), z)], -1)
        end = jnp.pad(z, ((0, 0), (0, 0), (came.shape[-1] - 2, 0)))
        states = came + product(end - came, _transposed(self.between))
        q, z = reshaped(self._positions(chunks, states), *drive.shape), states[..., :2]
        first = self.oscillators.gain[:, None] * z[..., 0]
        before = jnp.concatenate([first.reshape(*q.shape[:-1], 1), q[..., :-1]], -1)
        return z, q, before + q - 0.5 * drive

    def start(self, z: PyTree) -> PyTree:
        return _tree.zeros_like(z)

    def strength(self, z: PyTree, load: Float[Array, ""], steps: int) -> Any:
        return jnp.ones_like(load)

    def respond(self, beta: Any, nudged: PyTree, path: Any, drive: Wide, push: Wide) -> tuple[PyTree, PyTree, Wide]:
        chunks = self._chunked(push)
        came = jnp.concatenate([_joined(product(chunks, _transposed(self.start_to_node)), nudged), nudged], -1)
        states = product(came, _transposed(self.between))
        bar_drive = product(chunks, _transposed(self.kick_to_node))
        bar_drive += _spanned(_cut(states[..., 2:]), _transposed(self.kick_to_end))
        bar_drive = reshaped(bar_drive, *drive.shape)
        # ∂H/∂w = sin(w) q², q at the half step. The path is 2 cos²(w/2) q there, and `bar_drive` is d_β q.
        bar_angle = jnp.sum(jax.lax.optimization_barrier(path * bar_drive), (1, 2, 3))
        bar_angle *= -2 * jnp.tan(0.5 * self.oscillators.angle)
        return states[..., :2], LinearOscillators(bar_angle), bar_drive

    def check(self, x: Any, beta: Any, nudged: PyTree, load: Float[Array, ""], steps: int) -> Any:
        # The response is computed directly. Nothing is subtracted, so no digits are lost.
        return x

    def _chunked(self, x: Wide) -> Float[Array, "units chunks chunk"]:
        return reshaped(x, x.shape[0], -1, self.kick_to_node.shape[-1])

    def _positions(self, chunks: Array, states: Array) -> Array:
        """Return the positions after every step, from the kicks and from the states at the start of the chunks."""
        return product(chunks, self.kick_to_node) + _spanned(_cut(states[..., :-2]), self.start_to_node)


_SIN, _COS = 0, 1


def _sines(angle: Float[Array, " units"], half_steps: np.ndarray, quarters: Any, kept: Any = True) -> Array:
    r"""Return $\sin(w t + k \pi/2)$ for every angle $w$, integer half steps $t$ and quarter turns $k$; 0 if not `kept`.

    The phase is a fraction of a turn in fixed point. Its multiples wrap around exactly, so a rotation by many steps is
    the power of the rotation by one step, without a growing error.
    """
    half_steps, quarters, kept = np.broadcast_arrays(half_steps, quarters, kept)

    def along(angle: Array) -> Array:
        return jnp.expand_dims(angle, tuple(range(1, half_steps.ndim + 1)))

    @jax.custom_jvp
    def sines(angle: Float[Array, " units"]) -> Array:
        bits = 8 * angle.dtype.itemsize
        unsigned, signed = np.dtype(f"uint{bits}"), np.dtype(f"int{bits}")
        half_step = along((angle * (2**bits / (4 * math.pi))).astype(unsigned))
        phase = half_step * half_steps.astype(unsigned)[None] + (quarters.astype(unsigned) << (bits - 2))[None]
        phase = jax.lax.bitcast_convert_type(phase, signed).astype(angle.dtype)
        # The barrier keeps XLA from fusing the sine into its uses, where it would be computed again.
        return kept.astype(angle.dtype)[None] * jax.lax.optimization_barrier(jnp.sin(phase * (2 * math.pi / 2**bits)))

    # The fixed-point phase has no derivative in JAX. The echo does not need it; derivatives of an echo do.
    @sines.defjvp
    def sines_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
        (angle,), (change,) = primals, tangents
        turned = _sines(angle, half_steps, quarters + 1, kept)
        return sines(angle), turned * (0.5 * half_steps).astype(turned.dtype)[None] * along(change)

    return sines(angle)


def _transposed(matrices: Array) -> Array:
    return jnp.swapaxes(matrices, 1, 2)


def _joined(pairs: Float[Array, "units chunks 2"], z: Float[Array, "units rows 2"]) -> Float[Array, "units rows pairs"]:
    """Concatenate the pairs of all chunks of a row."""
    return pairs.reshape(*z.shape[:2], -1)


def _cut(states: Float[Array, "units rows pairs"]) -> Float[Array, "units chunks 2"]:
    return reshaped(states, states.shape[0], -1, 2)


def _spanned(z: Float[Array, "units chunks 2"], matrix: Float[Array, "units 2 times"]) -> Array:
    """Return the matrix product, written out because it is too narrow for a fast one."""
    return z[..., :1] * matrix[:, None, 0] + z[..., 1:] * matrix[:, None, 1]


class StepByStep(AbstractMotion):
    """Any oscillators, one leapfrog step at a time. The echo runs the ensemble of the nudge."""

    oscillators: AbstractOscillators
    nudge: AbstractNudge
    kernel: bool = eqx.field(static=True)

    def rest(self, oscillations: tuple[int, ...]) -> PyTree:
        zero = jnp.zeros(oscillations, jax.tree.leaves(self.oscillators)[0].dtype)
        return zero, zero

    def run(self, z: State, drive: Wide) -> tuple[State, Wide]:
        return self._through(z, drive, None, lambda before, after: after[0], reverse=False)

    def turn(self, z: State) -> State:
        return z[0], -z[1]

    def retrace(self, z: State, drive: Wide) -> tuple[State, Wide, Any]:
        z, q = self._through(z, drive, None, lambda before, after: before[0], reverse=True)
        return z, q, None

    def start(self, z: State) -> PyTree:
        return self.nudge.start(z)

    def strength(self, z: State, load: Float[Array, ""], steps: int) -> Any:
        return self.nudge.strength(z, relative_load(load, z), steps)

    def respond(self, beta: Any, nudged: PyTree, path: Any, drive: Wide, push: Wide) -> tuple[PyTree, PyTree, Wide]:
        params, static = eqx.partition(self.oscillators, eqx.is_inexact_array)

        def pushed(beta: Any, z: State) -> tuple[State, PyTree]:
            z, half = self._through(z, drive, beta * push, lambda z, after: z[0] + 0.5 * z[1], reverse=True)

            def action(params: Any, drive: Any) -> Float[Array, ""]:
                potential = jax.vmap(jax.vmap(lambda q, u: eqx.combine(params, static).potential(None, q, u)))
                return -jnp.sum(potential(half.T, drive.T))

            return z, jax.grad(action, (0, 1))(params, drive)

        nudged, (bar_self, bar_drive) = self.nudge.advance(beta, pushed, nudged)
        return nudged, bar_self, bar_drive

    def check(self, x: Any, beta: Any, nudged: PyTree, load: Float[Array, ""], steps: int) -> Any:
        return self.nudge.check(x, beta, nudged, load, steps)

    def _through(self, z: State, drive: Wide, push: Wide | None, seen: Any, *, reverse: bool) -> tuple[State, Wide]:
        """Push and step through a block; return the state, and `seen(before, after)` for every step."""

        def step(oscillators: AbstractOscillators, z: State, u: Array, push: Array | None) -> tuple[State, Array]:
            before = z if push is None else (z[0], z[1] + push)
            after = oscillators.step(before, u)
            return after, seen(before, after)

        z, rows = jax.tree.map(jnp.transpose, (z, (drive, push)))
        if self.kernel:
            leaves, tree = jax.tree.flatten(self.oscillators)

            def each(constants: list[Array], *columns: Any) -> tuple[State, Array]:
                """Step every oscillator as a bank of one."""
                ones = [x.reshape(-1, *(1,) * leaf.ndim) for x, leaf in zip(constants, leaves, strict=True)]
                columns = jax.tree.map(lambda x: x.reshape(-1, 1, 1), columns)
                return jax.tree.map(jnp.ravel, jax.vmap(step)(tree.unflatten(ones), *columns))

            z, outputs = scan(each, [jnp.broadcast_to(x, z[0].shape) for x in leaves], z, *rows, reverse=reverse)
        else:
            bank = jax.vmap(functools.partial(step, self.oscillators))
            z, outputs = jax.lax.scan(lambda z, row: bank(z, *row), z, rows, reverse=reverse)
        return jax.tree.map(jnp.transpose, z), outputs.T
