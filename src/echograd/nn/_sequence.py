"""A layer of oscillators over whole sequences, and its echo."""

import abc
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .. import _tree
from ..gradients import AbstractGradient, Backprop, Echo, checkpointed_scan, constant, tolerance_for
from ..integrators import State
from ..nudge import AbstractNudge, Infinitesimal
from ._motion import Rotation, motion
from ._oscillators import AbstractOscillators, Wide
from ._rows import Rows

# A block is a multiple of this many steps.
_UNIT = 32

# Rows at the outside of a layer, where the features may also come last.
Outer = Float[Array, "..."]


class AbstractLayer(eqx.Module):
    """What surrounds oscillators: three functions of rows, without memory from step to step."""

    # The axis of the steps in what goes into the layer and comes out of it; the axis before is that of the batch.
    axis: eqx.AbstractClassVar[int]

    @property
    @abc.abstractmethod
    def sizes(self) -> tuple[int, int, int]:
        """The numbers of units, of channels, and of output features."""

    @abc.abstractmethod
    def prepare(self, x: Outer) -> Rows:
        """Return the rows as the other two see them."""

    @abc.abstractmethod
    def drive(self, prepared: Rows) -> Wide:
        """Return the drive of the oscillators."""

    @abc.abstractmethod
    def output(self, x: Outer, prepared: Rows, q: Wide, block: Int[Array, ""]) -> Outer:
        """Return the output rows; `block` tells blocks of steps apart where they are random."""


def limits() -> tuple[int, int]:
    """Return the rows (steps × batch) to work on at a time, and the most steps, as a `vmap` may hide a batch from us.

    On a CPU they are enough for efficient products and few enough to stay in the cache. An accelerator loses time with
    every block, whose operations are launched one by one.
    """
    return (6144, 1536) if jax.default_backend() == "cpu" else (32_768, 4096)


def block_length(steps: int, batch: int) -> int:
    """Return the number of steps of a block: of a good size, and with the fewest steps of padding at the end."""
    rows, longest = limits()
    longest = max(_UNIT, min(rows // batch, longest) // _UNIT * _UNIT)
    sizes = range(longest, longest // 2, -_UNIT)
    return min(sizes, key=lambda n: math.ceil(steps / n) * n) if steps > longest else math.ceil(steps / _UNIT) * _UNIT


def transduce(oscillators: AbstractOscillators, layer: AbstractLayer, x: Outer, gradient: AbstractGradient) -> Outer:
    r"""Return what a layer makes of sequences, its oscillators starting at rest.

    The sequence is taken block by block. Whatever is wide or can be computed again (drives, positions, everything
    inside the layer) lives for one block, both ways: with an `Echo` the backward pass has the input `x` and the final
    state, and the positions come from the echo itself.
    """
    gradient = constant(gradient)
    batch, steps = x.shape[layer.axis - 1 : layer.axis + 1]
    length = block_length(steps, batch)
    padding = -steps % length
    # Steps after the end change nothing before it.
    x = jnp.pad(x, [(0, padding * (axis == layer.axis)) for axis in range(3)]) if padding else x
    if isinstance(gradient, Echo):
        y = _echoed((oscillators, layer, x), length, gradient)
    elif isinstance(gradient, Backprop):
        y = _backpropagated(oscillators, layer, x, length, gradient.checkpoints)
    else:
        raise TypeError(f"A recurrent unit takes gradient=Echo(...) or Backprop(...), and got {gradient!r}.")
    return jax.lax.slice_in_dim(y, 0, steps, axis=layer.axis) if padding else y


def stream(
    oscillators: AbstractOscillators, layer: AbstractLayer, z: State, x: Float[Array, " features"]
) -> tuple[State, Float[Array, " outputs"]]:
    """Take in one row and return the new state and the output: the streaming form of `transduce`."""
    single = layer.axis - 1, layer.axis
    x = jnp.expand_dims(x, single)
    prepared = layer.prepare(x)
    z = oscillators.step(z, layer.drive(prepared)[:, :, 0, 0].T)
    return z, jnp.squeeze(layer.output(x, prepared, z[0].T[:, :, None, None], jnp.zeros((), jnp.int32)), single)


def _backpropagated(
    oscillators: AbstractOscillators, layer: AbstractLayer, x: Outer, length: int, checkpoints: int | None
) -> Outer:
    """Take the sequence step by step, for JAX to differentiate: the oracle, which shares no shortcut with the echo."""

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


def _rows(x: Outer, block: Int[Array, ""], length: int, axis: int) -> Outer:
    return jax.lax.dynamic_slice_in_dim(x, block * length, length, axis)


def _put(x: Outer, rows: Outer, block: Int[Array, ""], axis: int) -> Outer:
    return jax.lax.dynamic_update_slice_in_dim(x, rows, block * rows.shape[axis], axis)


class Blocks(eqx.Module):
    """How a sequence is cut into blocks, and where a layer finds its rows in a store of arrays, and puts others.

    Whoever holds the store says so: a unit has arrays for its inputs and its outputs, a model has one for all layers.
    """

    number: int
    length: int
    batch: int
    take: Callable[[Any, Int[Array, ""]], Outer] = eqx.field(static=True)
    put: Callable[[Any, Outer, Int[Array, ""]], Any] = eqx.field(static=True)


def run_layer(
    oscillators: AbstractOscillators, layer: AbstractLayer, nudge: AbstractNudge, blocks: Blocks, store: Any
) -> tuple[Any, Any]:
    """Return the final state, starting from rest, and the store with the outputs put into it."""
    moved = motion(oscillators, nudge, blocks.length)

    def body(block: Int[Array, ""], carry: Any) -> Any:
        z, store = carry
        rows = blocks.take(store, block)
        prepared = layer.prepare(rows)
        z, q = moved.run(z, layer.drive(prepared))
        return z, blocks.put(store, layer.output(rows, prepared, q, block), block)

    start = moved.rest((*layer.sizes[:2], blocks.batch))
    return jax.lax.fori_loop(0, blocks.number, body, (start, store))


def echo_layer(
    oscillators: AbstractOscillators,
    layer: AbstractLayer,
    echo: Echo,
    blocks: Blocks,
    bars: Callable[[Any, Outer, Int[Array, ""]], Outer],
    final: Any,
    store: Any,
) -> tuple[tuple[Any, Any], Any, Callable[[Any], Any]]:
    """Echo the layer: every block is retraced, differentiated without memory, nudged, and read.

    Args:
        oscillators: the oscillators.
        layer: what surrounds them.
        echo: the gradient.
        blocks: how to cut; rows are taken from the store, and their cotangents are put into it.
        bars: the cotangents of the outputs of a block, out of the store; the outputs, too, are there for it.
        final: the final state.
        store: the store.

    Returns:
        The cotangents of oscillators and layer, the store, and a check through which results have to pass.
    """
    moved = motion(oscillators, echo.nudge, blocks.length)
    params, static = eqx.partition(layer, eqx.is_inexact_array)

    def pulled(method: str, *rows: Any, **fixed: Any) -> Any:
        """Return a method of the layer at these rows, and the function that pulls cotangents back through it."""

        def function(params: Any, *rows: Any) -> Any:
            return getattr(eqx.combine(params, static), method)(*rows, **fixed)

        return jax.vjp(function, params, *rows)

    def retrace(store: Any, block: Any, z: Any) -> Any:
        """Go back through a block without nudges; return the state, the nudges, and what responds to them."""
        rows = blocks.take(store, block)
        prepared, pull_prepared = pulled("prepare", rows)
        drive, pull_drive = pulled("drive", prepared)
        z, q, path = moved.retrace(z, drive)
        outputs, pull_output = pulled("output", rows, prepared, q, block=block)
        bar_output, bar_rows, bar_prepared, push = pull_output(bars(store, outputs, block))

        def respond(beta: Any, nudged: Any) -> Any:
            """Return the nudged machine, and the cotangents of oscillators, layer and rows."""
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

    start, steps = moved.turn(final), blocks.number * blocks.length
    load = _tree.zeros_like(_tree.max_abs(start))
    if not isinstance(moved, Rotation) and not isinstance(echo.nudge, Infinitesimal):
        # A strength has to be chosen before the first nudge, and by all of them.
        _, load = jax.lax.fori_loop(0, blocks.number, weigh, (start, load))
    beta = moved.strength(start, load, steps)
    read = _tree.zeros_like((eqx.filter(oscillators, eqx.is_inexact_array), params))
    carry = start, moved.start(start), read, store
    ended, nudged, read, store = jax.lax.fori_loop(0, blocks.number, body, carry)
    # What is not damped is as large at the end as it ever was.
    size, tolerance = _tree.max_abs(start), tolerance_for(echo, start)

    def check(x: Any) -> Any:
        x = eqx.error_if(
            x,
            ~(_tree.max_abs(ended) <= tolerance * jnp.where(size > 0, size, 1)),
            "Echo: the oscillators of a unit did not come back to rest, so the echo did not run along the path it "
            f"should differentiate: they are off by more than {tolerance:g} of the final state, or are "
            "not numbers. Likely causes: not a number among inputs or parameters; or chaotic motion, along which "
            "rounding grew as the gradient did: use smaller angles, fewer steps or float64.",
        )
        return moved.check(x, beta, nudged, load, steps)

    return read, store, check


# Compiled as one function so that it is traced once, although the primal function and its forward rule both run it.
@eqx.filter_jit
def _run(arguments: Any, length: int, nudge: AbstractNudge) -> tuple[Any, Outer]:
    """Return the final state, which is all that the echo needs, and the outputs."""
    oscillators, layer, x = arguments
    blocks = _cut(x, length, layer.axis)
    batch, steps, outputs = blocks.batch, x.shape[layer.axis], layer.sizes[2]
    y = jnp.zeros((batch, steps, outputs) if layer.axis == 1 else (outputs, batch, steps), x.dtype)
    return run_layer(oscillators, layer, nudge, blocks, y)


def _cut(x: Outer, length: int, axis: int) -> Blocks:
    """Return blocks whose rows are those of `x`, and whose store is an array for other rows alone."""
    batch, steps = x.shape[axis - 1 : axis + 1]
    return Blocks(
        steps // length,
        length,
        batch,
        lambda store, block: _rows(x, block, length, axis),
        lambda store, rows, block: _put(store, rows, block, axis),
    )


@eqx.filter_custom_vjp
def _echoed(arguments: Any, length: int, echo: Echo) -> Outer:
    return _run(arguments, length, echo.nudge)[1]


@_echoed.def_fwd
def _echoed_forward(perturbed: Any, arguments: Any, length: int, echo: Echo) -> tuple[Outer, Any]:
    del perturbed
    final, y = _run(arguments, length, echo.nudge)
    return y, final


@_echoed.def_bwd
def _echoed_backward(final: Any, bar: Outer, perturbed: Any, arguments: Any, length: int, echo: Echo) -> Any:
    del perturbed
    oscillators, layer, x = arguments
    axis = layer.axis
    blocks = _cut(x, length, axis)
    bars, bar_x, check = echo_layer(
        oscillators,
        layer,
        echo,
        blocks,
        lambda store, outputs, block: _rows(bar, block, length, axis),
        final,
        jnp.zeros_like(x),
    )
    return _tree.check_heads(check, (*bars, bar_x))
