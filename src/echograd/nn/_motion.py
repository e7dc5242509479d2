"""The motion of oscillators through a block of steps, forward and back, and its step-by-step form."""

import abc
import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..integrators import State
from ..nudge import AbstractNudge
from ..nudge._base import relative_load
from ._kernel import scan
from ._oscillators import AbstractBank, AbstractOscillators, Wide


class AbstractMotion(eqx.Module):
    """A way to move oscillators through blocks of steps. Its states need not be positions and momenta."""

    oscillators: eqx.AbstractVar[AbstractBank]

    @property
    @abc.abstractmethod
    def lossy(self) -> bool:
        """Whether the oscillators lose energy. Then the forward pass keeps the state before every block."""

    @abc.abstractmethod
    def enter(self, state: State) -> PyTree:
        """Return a state of this motion from positions and momenta of shape (units, channels, batch)."""

    @abc.abstractmethod
    def leave(self, z: PyTree, like: State) -> State:
        """Return the positions and momenta of a state, shaped as in `like`."""

    @abc.abstractmethod
    def run(self, z: State, drive: Wide) -> tuple[State, Wide]:
        """Run a block of steps; return the state at its end, and the positions after every step."""

    @abc.abstractmethod
    def turn(self, z: State) -> State:
        """Return the time-reversed state, from which the echo starts."""

    @abc.abstractmethod
    def retrace(self, z: State, drive: Wide) -> tuple[State, Wide, Any]:
        """Run through a block once more without nudges: back from its end, or, if lossy, again from its start.

        Returns the state reached, the positions after every step of the forward run, and what `respond` needs of the
        path.
        """

    @abc.abstractmethod
    def strength(self, z: State, load: Float[Array, ""], steps: int) -> Any:
        """Return the strength β of nudges of total size `load`."""

    @abc.abstractmethod
    def start(self, z: State, beta: Any, bar: State | None) -> PyTree:
        """Return the nudged oscillators at the state `z`, kicked by β times the cotangent of the final state."""

    @abc.abstractmethod
    def respond(self, beta: Any, nudged: PyTree, path: Any, drive: Wide, push: Wide) -> tuple[PyTree, PyTree, Wide]:
        """Run back nudged by β `push`; return the oscillators, and d/dβ of the readings of parameters and drive."""

    @abc.abstractmethod
    def finish(self, beta: Any, nudged: PyTree, first: State) -> State:
        """Return the cotangent of the initial state `first` from the nudged oscillators at the end of their run."""

    @abc.abstractmethod
    def check(self, x: Any, beta: Any, nudged: PyTree, load: Float[Array, ""], steps: int) -> Any:
        """Return `x`, or raise at run time if the nudge is lost in rounding."""


class StepByStep(AbstractMotion):
    """Any oscillators, one leapfrog step at a time. The echo runs the ensemble of the nudge."""

    oscillators: AbstractOscillators
    nudge: AbstractNudge
    kernel: bool = eqx.field(static=True)

    @property
    def lossy(self) -> bool:
        return False

    def enter(self, state: State) -> PyTree:
        return state

    def leave(self, z: PyTree, like: State) -> State:
        return z

    def run(self, z: State, drive: Wide) -> tuple[State, Wide]:
        return self._through(z, drive, None, lambda before, after: after[0], reverse=False)

    def turn(self, z: State) -> State:
        return z[0], -z[1]

    def retrace(self, z: State, drive: Wide) -> tuple[State, Wide, Any]:
        z, q = self._through(z, drive, None, lambda before, after: before[0], reverse=True)
        return z, q, None

    def strength(self, z: State, load: Float[Array, ""], steps: int) -> Any:
        return self.nudge.strength(z, relative_load(load, z), steps)

    def start(self, z: State, beta: Any, bar: State | None) -> PyTree:
        nudged = self.nudge.start(z)
        if bar is None:
            return nudged
        # On the way back the response of the position is the cotangent of the momentum, and the other way round.
        kick = bar[1], bar[0]

        def kicked(beta: Any, z: State) -> tuple[State, PyTree]:
            return jax.tree.map(lambda x, kick: x + beta * kick, z, kick), ()

        return self.nudge.advance(beta, kicked, nudged)[0]

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

    def finish(self, beta: Any, nudged: PyTree, first: State) -> State:
        bar_p, bar_q = self.nudge.response(beta, nudged)
        return bar_q, bar_p

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
