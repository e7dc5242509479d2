"""A layer of oscillators over whole sequences, and its echo."""

import abc
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .._internal import _tree
from .._internal._errors import ArgumentTypeError
from ..gradients import AbstractGradient, Backprop, Echo
from ..gradients._backprop import checkpointed_scan
from ..gradients._retrace import tolerance_for
from ..integrators import State
from ..nudge import AbstractNudge, Infinitesimal
from ._motion import Rotation, motion
from ._oscillators import AbstractOscillators, Wide
from ._rows import Rows

# A block is a multiple of this many steps.
_UNIT = 32

# A block costs as much as this many rows beside its own.
_EXTRA = 256

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


def _crowded(apart: int) -> bool:
    """Return whether a cache has few places for numbers that are so far apart: a multiple of a large power of two.

    The features of a row are a block apart, and to turn rows around then takes three times as long.
    """
    return apart % 256 == 0


def block_length(steps: int, batch: int) -> int:
    """Return the number of steps of a block: of a good size, and with few steps of padding at the end."""
    rows, longest = limits()
    longest = max(_UNIT, min(rows // batch, longest) // _UNIT * _UNIT)
    if steps <= longest:
        return math.ceil(steps / _UNIT) * _UNIT

    def cost(length: int) -> float:
        return math.ceil(steps / length) * (length + _EXTRA / batch) * (1.1 if _crowded(batch * length) else 1)

    return min(range(longest, longest // 2, -_UNIT), key=cost)


def transduce(oscillators: AbstractOscillators, layer: AbstractLayer, x: Outer, gradient: AbstractGradient) -> Outer:
    r"""Return what a layer makes of sequences, its oscillators starting at rest.

    The sequence is taken block by block. Whatever is wide or can be computed again (drives, positions, everything
    inside the layer) lives for one block, both ways: with an `Echo` the backward pass has the input `x` and the final
    state, and the positions come from the echo itself. Steps of padding after the end change nothing before it.
    """
    gradient = _tree.fixed(gradient)
    batch, steps = x.shape[layer.axis - 1 : layer.axis + 1]
    length = block_length(steps, batch)
    if isinstance(gradient, Echo):
        return _echoed((oscillators, layer, x), length, gradient)
    if isinstance(gradient, Backprop):
        y = _backpropagated(oscillators, layer, _padded(x, layer.axis, length), length, gradient.checkpoints)
        return jax.lax.slice_in_dim(y, 0, steps, axis=layer.axis)
    raise ArgumentTypeError(f"A recurrent unit takes gradient=Echo(...) or Backprop(...), and got {gradient!r}.")


def _padded(x: Outer, axis: int, length: int) -> Outer:
    """Return a sequence of whole blocks."""
    over = -x.shape[axis] % length
    return jnp.pad(x, [(0, over * (i == axis)) for i in range(x.ndim)]) if over else x


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


class Sequence(eqx.Module):
    """Rows in blocks of steps, the last of which may reach beyond the end.

    To pad the rows would be to copy all of them. It is the last block that is padded, in an array of its own.
    """

    rows: Outer
    last: Outer | None
    length: int = eqx.field(static=True)
    axis: int = eqx.field(static=True)

    @staticmethod
    def of(rows: Outer, length: int, axis: int) -> "Sequence":
        """Cut rows into blocks of `length` steps."""
        steps = rows.shape[axis]
        end = jax.lax.slice_in_dim(rows, steps // length * length, steps, axis=axis)
        return Sequence(rows, _padded(end, axis, length) if steps % length else None, length, axis)

    @property
    def number(self) -> int:
        """The number of blocks."""
        return -(-self.rows.shape[self.axis] // self.length)

    def take(self, block: Int[Array, ""]) -> Outer:
        """Return a block of rows."""
        if self.number == 1 and self.last is not None:
            return self.last
        rows = self._slice(block)
        return rows if self.last is None else jnp.where(block == self.number - 1, self.last, rows)

    def put(self, rows: Outer, block: Int[Array, ""]) -> "Sequence":
        """Return the sequence with other rows in a block."""
        last = self.last
        if last is not None:
            if self.number == 1:
                return Sequence(self.rows, rows, self.length, self.axis)
            ends = block == self.number - 1
            # There are no rows of this block among the others, where a slice of as many goes back from the end.
            rows, last = jnp.where(ends, self._slice(block), rows), jnp.where(ends, rows, last)
        return Sequence(self._put(rows, block * self.length), last, self.length, self.axis)

    def _put(self, rows: Outer, start: Int[Array, ""]) -> Outer:
        examples = rows.shape[0]
        if self.axis == 2 or not _crowded(examples * self.length):
            return jax.lax.dynamic_update_slice_in_dim(self.rows, rows, start, self.axis)

        # They are turned around as they are put: one example after the other, whose features are not so far apart.
        def one(example: Int[Array, ""], put: Outer) -> Outer:
            row = jax.lax.optimization_barrier(jax.lax.dynamic_index_in_dim(rows, example, 0))
            return jax.lax.dynamic_update_slice(put, row, (example, start, jnp.zeros_like(start)))

        return jax.lax.fori_loop(0, examples, one, self.rows)

    def whole(self) -> Outer:
        """Return all rows."""
        if self.last is None:
            return self.rows
        steps = self.rows.shape[self.axis]
        start = steps // self.length * self.length
        end = jax.lax.slice_in_dim(self.last, 0, steps - start, axis=self.axis)
        return jax.lax.dynamic_update_slice_in_dim(self.rows, end, start, self.axis)

    def _slice(self, block: Int[Array, ""]) -> Outer:
        return jax.lax.dynamic_slice_in_dim(self.rows, block * self.length, self.length, self.axis)


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
    final, y = run_layer(oscillators, layer, nudge, blocks, Sequence.of(y, length, layer.axis))
    return final, y.whole()


def _cut(x: Outer, length: int, axis: int) -> Blocks:
    """Return blocks whose rows are those of `x`, and whose store is a sequence of other rows alone."""
    x_ = Sequence.of(x, length, axis)
    return Blocks(
        x_.number,
        length,
        x.shape[axis - 1],
        lambda store, block: x_.take(block),
        lambda store, rows, block: store.put(rows, block),
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
    bar_y = Sequence.of(bar, length, axis)
    bars, bar_x, check = echo_layer(
        oscillators,
        layer,
        echo,
        _cut(x, length, axis),
        lambda store, outputs, block: bar_y.take(block),
        final,
        Sequence.of(jnp.zeros_like(x), length, axis),
    )
    return _tree.check_heads(check, (*bars, bar_x.whole()))
