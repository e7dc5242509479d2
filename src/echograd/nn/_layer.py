"""A layer of oscillators over whole sequences, and its echo."""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .._internal import _tree
from .._internal._errors import refuse_if
from ..gradients import AbstractGradient, Backprop, Echo
from ..gradients._backprop import checkpointed_scan
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
from ._sequence import Blocks, Outer, Sequence, block_length, pad


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


def transduce(oscillators: AbstractBank, layer: AbstractLayer, x: Outer, gradient: AbstractGradient) -> Outer:
    r"""Return the outputs of a layer for whole sequences, with the oscillators starting at rest.

    The sequence is processed block by block. Wide arrays (drives, positions, activations) live for one block only, in
    both passes. With an `Echo`, the backward pass keeps the input `x` and the final state, and gets the positions from
    the echo itself. With `Reciprocal` it keeps the states between the blocks. Padding comes after the end, so it
    changes nothing before it.
    """
    gradient = _tree.fixed(gradient)
    batch, steps = x.shape[layer.axis - 1 : layer.axis + 1]
    length = block_length(steps, batch)
    if isinstance(gradient, Backprop):
        y = _backpropagated(oscillators, layer, pad(x, layer.axis, length), length, gradient.checkpoints)
        return jax.lax.slice_in_dim(y, 0, steps, axis=layer.axis)
    return _echoed((oscillators, layer, x), length, gradient)


def stream(
    oscillators: AbstractBank, layer: AbstractLayer, z: State, x: Float[Array, " features"]
) -> tuple[State, Float[Array, " outputs"]]:
    """Advance by one input row and return the new state and the output: the streaming form of `transduce`."""
    single = layer.axis - 1, layer.axis
    x = jnp.expand_dims(x, single)
    prepared = layer.prepare(x)
    z = oscillators.step(z, layer.drive(prepared)[:, :, 0, 0].T)
    return z, jnp.squeeze(layer.output(x, prepared, z[0].T[:, :, None, None], jnp.zeros((), jnp.int32)), single)


def _backpropagated(
    oscillators: AbstractBank, layer: AbstractLayer, x: Outer, length: int, checkpoints: int | None
) -> Outer:
    """Run the sequence step by step and let JAX differentiate it: the oracle, which shares no code with the echo."""

    def body(z: Any, row: Any) -> tuple[Any, Outer]:
        block, x = row
        prepared = layer.prepare(x)
        z, q = oscillators.stepwise(z, layer.drive(prepared))
        return z, layer.output(x, prepared, q, block)

    batch, steps = x.shape[layer.axis - 1 : layer.axis + 1]
    before, after = x.shape[: layer.axis], x.shape[layer.axis + 1 :]
    rows = jnp.moveaxis(x.reshape(*before, steps // length, length, *after), layer.axis, 0)
    blocks = jnp.arange(steps // length, dtype=jnp.int32)
    rest = jnp.zeros((*layer.sizes[:2], batch), x.dtype)
    y = jnp.moveaxis(checkpointed_scan(body, (rest, rest), (blocks, rows), checkpoints)[1], 0, layer.axis)
    return y.reshape(*y.shape[: layer.axis], steps, *y.shape[layer.axis + 2 :])


def run_layer(
    oscillators: AbstractBank, layer: AbstractLayer, gradient: AbstractGradient, blocks: Blocks, store: Any
) -> tuple[Any, Any]:
    """Return what the backward pass needs of the run from rest, and the store with the outputs in it.

    This is the final state; of lossy oscillators, the states before all blocks.
    """
    moved = motion(oscillators, gradient, blocks.length)

    def body(block: Int[Array, ""], carry: Any) -> Any:
        z, kept, store = carry
        rows = blocks.take(store, block)
        prepared = layer.prepare(rows)
        kept = _tree.put(kept, block, z) if moved.lossy else None
        z, q = moved.run(z, layer.drive(prepared))
        return z, kept, blocks.put(store, layer.output(rows, prepared, q, block), block)

    start = moved.rest((*layer.sizes[:2], blocks.batch))
    kept = jax.tree.map(lambda x: jnp.zeros((blocks.number, *x.shape), x.dtype), start) if moved.lossy else None
    final, kept, store = jax.lax.fori_loop(0, blocks.number, body, (start, kept, store))
    return kept if moved.lossy else final, store


def echo_layer(
    oscillators: AbstractBank,
    layer: AbstractLayer,
    gradient: AbstractGradient,
    blocks: Blocks,
    bars: Callable[[Any, Outer, Int[Array, ""]], Outer],
    record: Any,
    store: Any,
) -> tuple[tuple[Any, Any], Any, Callable[[Any], Any]]:
    """Run the echo of a layer: retrace every block, differentiate the layer there, nudge the oscillators, and read.

    A lossy layer has no echo. Every block is run again from the state before it, and the same machine, from rest, is
    driven by the reversed errors.

    Args:
        oscillators: the oscillators.
        layer: the layer around them.
        gradient: an echo, or `Reciprocal` for lossy oscillators.
        blocks: how to read rows from the store, and to write their cotangents into it.
        bars: `(store, outputs, block) -> cotangents` of the outputs of a block.
        record: what `run_layer` returned of the free run.
        store: arrays of rows, of the caller's choice.

    Returns:
        The cotangents of oscillators and layer, the store, and a check: a function that returns its argument, or raises
        at run time. Pass all results through it.
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

    start, steps = moved.turn(_tree.take(record, 0) if moved.lossy else record), blocks.number * blocks.length
    load = _tree.zeros_like(_tree.max_abs(start))
    if isinstance(moved, StepByStep) and not isinstance(moved.nudge, Infinitesimal):
        # The strength is chosen before the first nudge, from the size of all nudges.
        _, load = jax.lax.fori_loop(0, blocks.number, weigh, (start, load))
    beta = moved.strength(start, load, steps)
    read = _tree.zeros_like((eqx.filter(oscillators, eqx.is_inexact_array), params))
    carry = start, moved.start(start), read, store
    ended, nudged, read, store = jax.lax.fori_loop(0, blocks.number, body, carry)

    def check(x: Any) -> Any:
        x = _check_retrace(x, gradient, start, ended) if isinstance(gradient, Echo) else _check_finite(x, read)
        return moved.check(x, beta, nudged, load, steps)

    return read, store, check


def _check_retrace(x: Any, echo: Echo, start: Any, ended: Any) -> Any:
    """Return `x`, or raise at run time if the oscillators did not come back to rest."""
    # Undamped oscillators are as large at the end as before, so the final state tells their size.
    size, tolerance = _tree.max_abs(start), tolerance_for(echo, start)
    error = _tree.max_abs(ended) / jnp.where(size > 0, size, 1)
    return refuse_if(
        x,
        ~(error <= tolerance),
        "Echo: the oscillators of a unit did not come back to rest, so the echo left the path of the forward run. "
        f"They are off by {{}} of the final state, more than retrace_tolerance={tolerance:g}. Likely causes: (a) a "
        "NaN or an infinity in inputs or parameters; (b) chaotic motion, which amplifies rounding errors: use "
        "smaller angles, fewer steps or float64.",
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


# Compiled as one function: the primal function and its forward rule both call it, and it is traced once.
@eqx.filter_jit
def _run(arguments: Any, length: int, gradient: AbstractGradient) -> tuple[Any, Outer]:
    """Return what the backward pass needs of the run, and the outputs."""
    oscillators, layer, x = arguments
    blocks = _blocks(x, length, layer.axis)
    batch, steps, outputs = blocks.batch, x.shape[layer.axis], layer.sizes[2]
    y = jnp.zeros((batch, steps, outputs) if layer.axis == 1 else (outputs, batch, steps), x.dtype)
    record, y = run_layer(oscillators, layer, gradient, blocks, Sequence.of(y, length, layer.axis))
    return record, y.whole()


def _blocks(x: Outer, length: int, axis: int) -> Blocks:
    """Return blocks that read from `x` and write into a sequence of other rows."""
    inputs = Sequence.of(x, length, axis)
    return Blocks(
        inputs.number,
        length,
        x.shape[axis - 1],
        lambda store, block: inputs.take(block),
        lambda store, rows, block: store.put(rows, block),
    )


@eqx.filter_custom_vjp
def _echoed(arguments: Any, length: int, gradient: AbstractGradient) -> Outer:
    return _run(arguments, length, gradient)[1]


@_echoed.def_fwd
def _echoed_forward(perturbed: Any, arguments: Any, length: int, gradient: AbstractGradient) -> tuple[Outer, Any]:
    del perturbed
    record, y = _run(arguments, length, gradient)
    return y, record


@_echoed.def_bwd
def _echoed_backward(
    record: Any, bar: Outer, perturbed: Any, arguments: Any, length: int, gradient: AbstractGradient
) -> Any:
    del perturbed
    oscillators, layer, x = arguments
    axis = layer.axis
    bar_y = Sequence.of(bar, length, axis)
    bars, bar_x, check = echo_layer(
        oscillators,
        layer,
        gradient,
        _blocks(x, length, axis),
        lambda store, outputs, block: bar_y.take(block),
        record,
        Sequence.of(jnp.zeros_like(x), length, axis),
    )
    return _tree.check_heads(check, (*bars, bar_x.whole()))
