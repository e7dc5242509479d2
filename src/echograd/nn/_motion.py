"""How oscillators are taken through a block of steps, there and back: one step at a time, or all at once."""

import abc
import functools
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .. import _tree
from ..integrators import State
from ..nudge import AbstractFiniteNudge, AbstractNudge, Infinitesimal
from ._kernel import scan
from ._oscillators import AbstractOscillators, LinearOscillators, NonlinearOscillators, Wide

# Steps that a rotation takes in one product. Longer: more arithmetic; shorter: smaller matrices.
_CHUNK = 32


def motion(oscillators: AbstractOscillators, nudge: AbstractNudge) -> "AbstractMotion":
    """Return the fastest way of moving these oscillators in which the nudge means what it says."""
    exact_if_linear = isinstance(nudge, Infinitesimal | AbstractFiniteNudge)
    if isinstance(oscillators, LinearOscillators) and exact_if_linear:
        return Rotation(oscillators)
    return StepByStep(oscillators, nudge, isinstance(oscillators, NonlinearOscillators) and oscillators.kernel)


class AbstractMotion(eqx.Module):
    """A way of taking oscillators through blocks of steps. Its states need not be positions and momenta."""

    oscillators: eqx.AbstractVar[AbstractOscillators]

    @abc.abstractmethod
    def run(self, z: State, drive: Wide) -> tuple[State, Wide]:
        """Take a block of steps from rest or from an earlier block; return state and positions after every step."""

    @abc.abstractmethod
    def turn(self, z: State) -> State:
        """Return the time-reversed state, from which the echo starts."""

    @abc.abstractmethod
    def retrace(self, z: State, drive: Wide) -> tuple[State, Wide, Any]:
        """Go back through a block without nudges; return state, positions after every step, and the path taken."""

    @abc.abstractmethod
    def start(self, z: State) -> PyTree:
        """Return the nudged machine before any nudge, at the state `z`."""

    @abc.abstractmethod
    def strength(self, z: State, load: Float[Array, ""], steps: int) -> Any:
        """Return the strength β of the nudges, which have the total size `load`."""

    @abc.abstractmethod
    def respond(self, beta: Any, nudged: PyTree, path: Any, drive: Wide, push: Wide) -> tuple[PyTree, PyTree, Wide]:
        """Go back nudged by β `push`; return the machine, and d/dβ of the readings of parameters and drive."""

    @abc.abstractmethod
    def check(self, x: Any, beta: Any, nudged: PyTree, load: Float[Array, ""], steps: int) -> Any:
        """Return `x`, or raise at run time where the nudge is lost in rounding."""


class Rotation(AbstractMotion):
    r"""Linear oscillators, a chunk of steps at once: a triangular product inside, a rotation from chunk to chunk.

    The echo undoes the rotations, which is exact to rounding. And as the machine is linear, d/dβ of its motion is the
    same for every finite nudge and the infinitesimal one: the response is carried, and no ensemble.
    """

    oscillators: LinearOscillators

    def run(self, z: State, drive: Wide) -> tuple[State, Wide]:
        chunks, kernel = _chunked(drive), _Matrices(self.oscillators.angle, _chunk(drive))
        z, starts = kernel.carry(z, kernel.kicked(chunks))
        return z, (_along(chunks, kernel.kick_to_node) + kernel.node_from(starts)).reshape(drive.shape)

    def turn(self, z: State) -> State:
        # The echo is the inverse rotation of the state as it is.
        return z

    def retrace(self, z: State, drive: Wide) -> tuple[State, Wide, Any]:
        chunks, kernel = _chunked(drive), _Matrices(self.oscillators.angle, _chunk(drive))
        z, starts = kernel.carry_back(z, kernel.kicked(chunks))
        q = _along(chunks, kernel.kick_to_node) + kernel.node_from(starts)
        half = _along(chunks, kernel.kick_to_kick) + kernel.kick_from(starts)
        return z, q.reshape(drive.shape), half

    def start(self, z: State) -> PyTree:
        return _tree.zeros_like(z)

    def strength(self, z: State, load: Float[Array, ""], steps: int) -> Any:
        return jnp.ones_like(load)

    def respond(self, beta: Any, nudged: PyTree, path: Any, drive: Wide, push: Wide) -> tuple[PyTree, PyTree, Wide]:
        chunks, kernel = _chunked(push), _Matrices(self.oscillators.angle, _chunk(push))
        nudged, ends = kernel.carry_response(nudged, kernel.nudged(chunks))
        bar_drive = _along(chunks, jnp.swapaxes(kernel.kick_to_node, 1, 2)) + kernel.kick_into(ends)
        # ∂H/∂w = ½ ∂a/∂w q² at the half step, where ½ ∂a/∂w = sin w; `path` is q sin w there, and `bar_drive` is d_β q.
        bar_angle = -2 * jnp.sum(jax.lax.optimization_barrier(path * bar_drive), (1, 2, 3))
        return nudged, LinearOscillators(bar_angle), bar_drive.reshape(drive.shape)

    def check(self, x: Any, beta: Any, nudged: PyTree, load: Float[Array, ""], steps: int) -> Any:
        # The response itself was carried: nothing was subtracted, so no digits were lost.
        return x


def _chunk(x: Wide) -> int:
    return math.gcd(x.shape[-1], _CHUNK)


def _chunked(x: Wide) -> Float[Array, "units rows chunks chunk"]:
    """Cut the steps into chunks; the rows are channels and batch."""
    chunk = _chunk(x)
    return x.reshape(x.shape[0], -1, x.shape[-1] // chunk, chunk)


def _along(x: Array, matrix: Float[Array, "units chunk times"]) -> Array:
    """Multiply the chunks of every oscillator with its matrix."""
    units, rows, chunks, chunk = x.shape
    return (x.reshape(units, rows * chunks, chunk) @ matrix).reshape(units, rows, chunks, -1)


class _Matrices:
    r"""A chunk of $n$ steps of linear oscillators as matrices along time.

    The state is $(\hat q, \hat p)$, so that $q = g \hat q$ with $g = 1/(2 \sin(w/2))$, and a kick adds to $\hat p$.
    Node $t + 1$ is $t + \frac12$ steps after kick $t$.
    """

    def __init__(self, angle: Float[Array, " units"], n: int) -> None:
        steps = jnp.arange(n, dtype=angle.dtype)

        def turned(times: Float[Array, " n"]) -> tuple[Array, Array]:
            w = angle[:, None] * times[None]
            return jnp.cos(w), jnp.sin(w)

        self.n = n
        self.gain = 0.5 / jnp.sin(0.5 * angle)
        self.turn = tuple(x[:, 0] for x in turned(jnp.full((1,), n, angle.dtype)))
        self.to_kick = turned(steps + 0.5)  # from the start of the chunk
        self.to_node = turned(steps + 1)
        self.to_end = turned(n - 0.5 - steps)  # from the kicks
        cos, sin = turned(steps)

        def later(to: tuple[Array, Array], kept: Array) -> Float[Array, "units kicks times"]:
            """Return sin w(t - s) from those of t and s."""
            difference = cos[:, :, None] * to[1][:, None] - sin[:, :, None] * to[0][:, None]
            return jnp.where(kept[None], difference, 0)

        self.kick_to_node = self.gain[:, None, None] * later(self.to_kick, steps[:, None] <= steps[None])
        self.kick_to_kick = later((cos, sin), steps[:, None] < steps[None])

    def kicked(self, drive: Array) -> State:
        """Return what the kicks of a chunk add to the state at its end."""
        cos, sin = self.to_end
        both = _along(drive, jnp.stack([sin, cos], 2))
        return both[..., 0], both[..., 1]

    def nudged(self, push: Array) -> State:
        """Return what the nudges of the nodes of a chunk add to the response at its start."""
        cos, sin = self.to_node
        both = _along(push, self.gain[:, None, None] * jnp.stack([cos, sin], 2))
        return both[..., 0], both[..., 1]

    def node_from(self, start: State) -> Array:
        """Return the positions at the nodes that come from the state at the start of a chunk."""
        cos, sin = (self.gain[:, None] * x for x in self.to_node)
        return _spanned(start, cos, sin)

    def kick_from(self, start: State) -> Array:
        """Return the same at the kicks, at half steps, divided by the gain."""
        return _spanned(start, *self.to_kick)

    def kick_into(self, end: State) -> Array:
        """Return the readings of the drive that come from the response at the end of a chunk."""
        cos, sin = self.to_end
        return _spanned(end, sin, cos)

    def turned(self, z: State, sign: int) -> State:
        """Return a state after a whole chunk without kicks, or before it."""
        (cos, sin), (q, p) = (jnp.expand_dims(x, tuple(range(1, z[0].ndim))) for x in self.turn), z
        return q * cos + sign * p * sin, p * cos - sign * q * sin

    def carry(self, z: State, added: State) -> tuple[State, State]:
        """Go from chunk to chunk; return the last state and those at the starts of the chunks."""
        return _scanned(lambda z, a: (_tree.add(self.turned(z, 1), a), z), z, added)

    def carry_back(self, z: State, added: State) -> tuple[State, State]:
        """Go back; return the first state and those at the starts of the chunks."""

        def body(z: State, a: State) -> tuple[State, State]:
            z = self.turned(_tree.subtract(z, a), -1)
            return z, z

        return _scanned(body, z, added, reverse=True)

    def carry_response(self, z: State, added: State) -> tuple[State, State]:
        """Go back; return the first response and those at the ends of the chunks."""
        return _scanned(lambda z, a: (_tree.add(self.turned(z, -1), a), z), z, added, reverse=True)


def _spanned(z: State, of_q: Array, of_p: Array) -> Array:
    q, p = (x[..., None] for x in z)
    return q * of_q[:, None, None] + p * of_p[:, None, None]


def _scanned(body: Any, z: State, added: State, *, reverse: bool = False) -> tuple[State, State]:
    """Scan over the chunks, the last axis."""
    shape = z[0].shape
    z = z[0].reshape(shape[0], -1), z[1].reshape(shape[0], -1)
    if added[0].shape[-1] == 1:
        z, kept = body(z, (added[0][..., 0], added[1][..., 0]))
        kept = kept[0][..., None], kept[1][..., None]
    else:
        rows = jnp.moveaxis(added[0], -1, 0), jnp.moveaxis(added[1], -1, 0)
        z, kept = jax.lax.scan(body, z, rows, reverse=reverse)
        kept = jnp.moveaxis(kept[0], 0, -1), jnp.moveaxis(kept[1], 0, -1)
    return (z[0].reshape(shape), z[1].reshape(shape)), kept


class StepByStep(AbstractMotion):
    """Any oscillators, one leapfrog at a time; the echo carries the ensemble of the nudge."""

    oscillators: AbstractOscillators
    nudge: AbstractNudge
    kernel: bool = eqx.field(static=True)

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
        return self.nudge.strength(z, load, steps)

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
        """Push and step through a block; return the state, and for every step what is `seen` before and after it."""

        def step(oscillators: AbstractOscillators, z: State, u: Array, push: Array | None) -> tuple[State, Array]:
            before = z if push is None else (z[0], z[1] + push)
            after = oscillators.step(before, u)
            return after, seen(before, after)

        z, rows = jax.tree.map(jnp.transpose, (z, (drive, push)))
        if self.kernel:
            leaves, tree = jax.tree.flatten(self.oscillators)

            def each(constants: list[Array], *columns: Any) -> tuple[State, Array]:
                """Take a step of every oscillator for itself, as a bank of one."""
                ones = [x.reshape(-1, *(1,) * leaf.ndim) for x, leaf in zip(constants, leaves, strict=True)]
                columns = jax.tree.map(lambda x: x.reshape(-1, 1, 1), columns)
                return jax.tree.map(jnp.ravel, jax.vmap(step)(tree.unflatten(ones), *columns))

            z, outputs = scan(each, [jnp.broadcast_to(x, z[0].shape) for x in leaves], z, *rows, reverse=reverse)
        else:
            bank = jax.vmap(functools.partial(step, self.oscillators))
            z, outputs = jax.lax.scan(lambda z, row: bank(z, *row), z, rows, reverse=reverse)
        return jax.tree.map(jnp.transpose, z), outputs.T
