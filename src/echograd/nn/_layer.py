"""A layer of oscillators over whole sequences, and its echo."""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from .._internal import _tree
from .._internal._errors import refuse_if
from ..gradients import AbstractGradient, Echo
from ..gradients._retrace import tolerance_for
from ..integrators import State
from ..nudge import AbstractFiniteNudge, Infinitesimal
from ._arguments import checked_gradient
from ._layout import Rows
from ._motion import AbstractMotion, StepByStep
from ._oscillators import (
    AbstractBank,
    AbstractOscillators,
    DampedOscillators,
    LinearOscillators,
    NonlinearOscillators,
    Wide,
)
from ._rotation import Rotation
from ._sequence import Blocks, Outer


class AbstractLayer(eqx.Module):
    """The memoryless part of a layer around its oscillators: three functions of rows."""

    # The axis of the steps in the inputs and outputs of the layer. The axis before it is the batch.
    axis: eqx.AbstractClassVar[int]

    @property
    @abc.abstractmethod
    def sizes(self) -> tuple[int, int, int]:
        """The numbers of units, of channels, and of output features."""

    @abc.abstractmethod
    def prepare(self, x: Outer) -> Rows:
        """Return the rows in the form that `drive` and `output` take, such as normalised."""

    @abc.abstractmethod
    def drive(self, prepared: Rows) -> Wide:
        """Return the drive of the oscillators."""

    @abc.abstractmethod
    def output(self, x: Outer, prepared: Rows, q: Wide, block: Int[Array, ""]) -> Outer:
        """Return the output rows; `block` is the number of the block of steps, for random numbers."""


def motion(oscillators: AbstractBank, gradient: AbstractGradient, length: int) -> AbstractMotion:
    """Return the fastest motion of these oscillators for this gradient, in blocks of `length` steps."""
    gradient = checked_gradient("A recurrent unit", gradient, lossy=isinstance(oscillators, DampedOscillators))
    if isinstance(oscillators, DampedOscillators):
        return Rotation(oscillators, length)
    assert isinstance(gradient, Echo)
    assert isinstance(oscillators, AbstractOscillators)
    exact_if_linear = isinstance(gradient.nudge, Infinitesimal | AbstractFiniteNudge)
    if isinstance(oscillators, LinearOscillators) and exact_if_linear:
        return Rotation(oscillators, length)
    kernel = isinstance(oscillators, NonlinearOscillators) and oscillators.kernel
    return StepByStep(oscillators, gradient.nudge, kernel)


def state_or_rest(state: State | None, oscillators: AbstractBank, layer: AbstractLayer, batch: int) -> State:
    """Return a state, by default that at rest."""
    if state is not None:
        return state
    zero = jnp.zeros((*layer.sizes[:2], batch), jax.tree.leaves(oscillators)[0].dtype)
    return zero, zero


def run_layer(
    oscillators: AbstractBank,
    layer: AbstractLayer,
    gradient: AbstractGradient,
    blocks: Blocks,
    store: Any,
    state: State | None = None,
) -> tuple[Any, State, Any]:
    """Return what the backward pass needs of a run, the final state, and the store with the outputs in it.

    It needs the final state, in the form of the motion; of lossy oscillators, the states before all blocks.
    """
    moved = motion(oscillators, gradient, blocks.length)

    def body(block: Int[Array, ""], carry: Any) -> Any:
        z, kept, store = carry
        rows = blocks.take(store, block)
        prepared = layer.prepare(rows)
        kept = _tree.put(kept, block, z) if moved.lossy else None
        z, q = moved.run(z, layer.drive(prepared))
        return z, kept, blocks.put(store, layer.output(rows, prepared, q, block), block)

    state = state_or_rest(state, oscillators, layer, blocks.batch)
    start = moved.enter(state)
    kept = jax.tree.map(lambda x: jnp.zeros((blocks.number, *x.shape), x.dtype), start) if moved.lossy else None
    final, kept, store = jax.lax.fori_loop(0, blocks.number, body, (start, kept, store))
    return kept if moved.lossy else final, moved.leave(final, state), store


def echo_layer(
    oscillators: AbstractBank,
    layer: AbstractLayer,
    gradient: AbstractGradient,
    blocks: Blocks,
    bars: Callable[[Any, Outer, Int[Array, ""]], Outer],
    record: Any,
    store: Any,
    ends: tuple[State, State, State] | None = None,
) -> tuple[tuple[Any, Any, State | None], Any, Callable[[Any], Any]]:
    """Run the echo of a layer: retrace every block, differentiate the layer there, nudge the oscillators, and read.

    A lossy layer has no echo. Every block is run again from the state before it, and the same machine, from rest, is
    driven by the reversed errors. The cotangent of the final state is a kick before the run back, and the response at
    its end is the cotangent of the initial state.

    Args:
        oscillators: the oscillators.
        layer: the layer around them.
        gradient: an echo, or `Reciprocal` for lossy oscillators.
        blocks: how to read rows from the store, and to write their cotangents into it.
        bars: `(store, outputs, block) -> cotangents` of the outputs of a block.
        record: what `run_layer` returned of the free run.
        store: arrays of rows, of the caller's choice.
        ends: the initial state, the final state, and the cotangent of the final state; by default the oscillators
            start at rest, and the final state is not differentiated.

    Returns:
        The cotangents of oscillators, layer and initial state, the store, and a check: a function that returns its
        argument, or raises at run time. Pass all results through it.
    """
    moved = motion(oscillators, gradient, blocks.length)
    params, static = eqx.partition(layer, eqx.is_inexact_array)

    def pulled(method: str, *rows: Any, **fixed: Any) -> Any:
        """Return the result of a method of the layer, and its vector-Jacobian product."""

        def function(params: Any, *rows: Any) -> Any:
            return getattr(eqx.combine(params, static), method)(*rows, **fixed)

        return jax.vjp(function, params, *rows)

    def retrace(store: Any, block: Any, z: Any) -> Any:
        """Run through a block once more without nudges.

        Returns the state, the unit nudges, and a function that runs the nudged oscillators through the same block.
        """
        rows = blocks.take(store, block)
        z = _tree.take(record, block) if moved.lossy else z
        prepared, pull_prepared = pulled("prepare", rows)
        drive, pull_drive = pulled("drive", prepared)
        z, q, path = moved.retrace(z, drive)
        outputs, pull_output = pulled("output", rows, prepared, q, block=block)
        bar_output, bar_rows, bar_prepared, push = pull_output(bars(store, outputs, block))

        def respond(beta: Any, nudged: Any) -> Any:
            """Return the nudged oscillators, and the cotangents of oscillators, layer and rows."""
            nudged, reading, bar_drive = moved.respond(beta, nudged, path, drive, push)
            bar_input, more = pull_drive(bar_drive)
            bar_norm, again = pull_prepared(bar_prepared + more)
            return nudged, reading, _tree.add(bar_output, _tree.add(bar_input, bar_norm)), bar_rows + again

        return z, push, respond

    def body(i: Any, carry: Any) -> Any:
        block = blocks.number - 1 - i
        z, nudged, (bar_oscillators, bar_layer), store = carry
        z, _, respond = retrace(store, block, z)
        nudged, reading, read, rows = respond(beta, nudged)
        read = _tree.add(bar_oscillators, reading), _tree.add(bar_layer, read)
        return z, nudged, read, blocks.put(store, rows, block)

    def weigh(i: Any, carry: Any) -> Any:
        z, load = carry
        z, push, _ = retrace(store, blocks.number - 1 - i, z)
        return z, load + jnp.sum(jnp.sqrt(jnp.sum(push**2, (0, 1, 2))))

    bar_last = None if ends is None else ends[2]
    start, steps = moved.turn(_tree.take(record, 0) if moved.lossy else record), blocks.number * blocks.length
    load = _tree.zeros_like(_tree.max_abs(start))
    if isinstance(moved, StepByStep) and not isinstance(moved.nudge, Infinitesimal):
        # The strength is chosen before the first nudge, from the size of all nudges.
        load = load if bar_last is None else _tree.norm(bar_last)
        _, load = jax.lax.fori_loop(0, blocks.number, weigh, (start, load))
    beta = moved.strength(start, load, steps)
    read = _tree.zeros_like((eqx.filter(oscillators, eqx.is_inexact_array), params))
    carry = start, moved.start(start, beta, bar_last), read, store
    ended, nudged, read, store = jax.lax.fori_loop(0, blocks.number, body, carry)
    bar_first = given = None
    if ends is not None:
        first, last, bar_last = ends
        bar_first, given = moved.finish(beta, nudged, first), moved.turn(moved.enter(first))
        if isinstance(oscillators, DampedOscillators):
            more = oscillators.end_readings(first, bar_first, last, bar_last)
            read = _tree.add(read[0], more), read[1]

    def check(x: Any) -> Any:
        x = _check_retrace(x, gradient, start, ended, given) if isinstance(gradient, Echo) else _check_finite(x, read)
        return moved.check(x, beta, nudged, load, steps)

    return (*read, bar_first), store, check


def _check_retrace(x: Any, echo: Echo, start: Any, ended: Any, given: Any) -> Any:
    """Return `x`, or raise at run time if the oscillators did not come back to their initial state, by default rest."""
    # Undamped oscillators are as large at the end as before, so the final state tells their size.
    size, tolerance = _tree.max_abs((start, given)), tolerance_for(echo, start)
    error = _tree.max_abs(ended if given is None else _tree.subtract(ended, given)) / jnp.where(size > 0, size, 1)
    return refuse_if(
        x,
        ~(error <= tolerance),
        "Echo: the oscillators of a unit did not come back to their initial state, so the echo left the path of the "
        f"forward run. They are off by {{}} of the size of the state, more than retrace_tolerance={tolerance:g}. "
        "Likely causes: (a) a NaN or an infinity in inputs or parameters; (b) chaotic motion, which amplifies rounding "
        "errors: use smaller angles, fewer steps or float64.",
        error,
    )


def _check_finite(x: Any, read: Any) -> Any:
    """Return `x`, or raise at run time if the gradient is not finite."""
    return refuse_if(
        x,
        ~_tree.all_finite(read),
        "Reciprocal: the gradient of a unit is not finite; its largest entry is {}. Likely causes: a NaN or an "
        "infinity in the inputs, in the parameters, or in the cost.",
        _tree.max_abs(read),
    )
