"""A chain of layers over whole sequences, and its echo, in one store of rows."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .._internal import _tree
from ..gradients import Echo
from ._norm import Moments
from ._oscillators import AbstractOscillators
from ._rows import Rows, Valid, encoded
from ._sequence import AbstractLayer, Blocks, block_length, echo_layer, run_layer

# The outputs of every layer that another layer needs, or the caller; then their cotangents.
Store = Float[Array, "places features batch steps"]


class AbstractCell(eqx.Module):
    """A layer that may look at all its rows before it begins with the first."""

    @property
    @abc.abstractmethod
    def echo(self) -> Echo:
        """The gradient of the layer."""

    @abc.abstractmethod
    def moments(self, x: Rows, valid: Valid) -> Moments | None:
        """Return what it wants to know of rows; of several blocks it gets the sum."""

    @abc.abstractmethod
    def fit(self, moments: Any, running: Any) -> tuple[tuple[AbstractOscillators, AbstractLayer], Any]:
        """Return oscillators and what surrounds them for these rows, and the updated running statistics."""


def chained(
    encoder: eqx.nn.Linear, cells: tuple[Any, Any], x: Rows, valid: Valid, *, pool: bool
) -> tuple[Rows | Float[Array, "features batch"], Any]:
    r"""Return what a chain of layers of one kind makes of encoded sequences, and their running statistics.

    All layers work in one store of rows: a layer reads its inputs block by block and puts its outputs into the next
    place, and whatever is to be known of all of these is added up on the way. Back, an echo takes the inputs of a layer
    for the last time, and puts their cotangents where they were. So there is nothing to copy, and the backward pass
    needs no memory of its own. What the encoder makes is narrow to begin with: it is made again whenever it is needed.

    Args:
        encoder: what makes rows for the first layer.
        cells: layers, and their running statistics, with a leading axis on every array.
        x: sequences, shape (inputs, batch, steps), padded to whole blocks.
        valid: which of their rows count.
        pool: whether the sums of the rows that count are needed instead of all rows.
    """
    return _chained((encoder, cells, x), valid, pool)


def pooled(x: Rows, valid: Valid) -> Float[Array, "features batch"]:
    """Return the sums over the rows that count."""
    return jnp.sum(valid[None] * x, -1)


class Passed(eqx.Module):
    """What a layer has put into the store, and what is to be known of it: its moments, and its sums where it pools."""

    store: Store
    moments: Moments | None
    sums: Float[Array, "features batch"] | None


class HandedBack(eqx.Module):
    """Where the cotangents of the rows in a place are: in the store, but for what all rows have in common."""

    store: Store
    bar_moments: Moments | None
    moments: Moments | None
    bar_sums: Float[Array, "features batch"] | None


def _start(place: Any, block: Int[Array, ""], length: int) -> list[Any]:
    return [jnp.asarray(i, jnp.int32) for i in (place, 0, 0, block * length)]


def _rows(store: Store, place: Any, block: Int[Array, ""], length: int) -> Rows:
    return jax.lax.dynamic_slice(store, _start(place, block, length), (1, *store.shape[1:3], length))[0]


def _taken(store: Store, place: Any, block: Int[Array, ""], length: int) -> Rows:
    """Take rows out of the store before others are put in.

    Without the barrier whatever needs the rows reads the store itself, perhaps too late, and XLA copies the store.
    """
    return jax.lax.optimization_barrier(_rows(store, place, block, length))


def _put(store: Store, place: Any, rows: Rows, block: Int[Array, ""]) -> Store:
    return jax.lax.dynamic_update_slice(store, rows[None], _start(place, block, rows.shape[-1]))


def _steps(x: Array, block: Int[Array, ""], length: int) -> Array:
    """Return a block of steps of what is not in the store."""
    return jax.lax.dynamic_slice_in_dim(x, block * length, length, x.ndim - 1)


def _inputs(
    index: Int[Array, ""], encoder: eqx.nn.Linear, x: Rows, store: Store, block: Int[Array, ""], length: int
) -> Rows:
    """Return the inputs of a layer: what the encoder makes, or what the layer before has put into the store."""
    return jax.lax.cond(
        index == 0,
        lambda: encoded(encoder, _steps(x, block, length)),
        lambda: _taken(store, jnp.maximum(index - 1, 0), block, length),
    )


def _together(a: Any, b: Any) -> Any:
    """Return the sum of what is known of two blocks of rows, where there is anything."""
    return None if a is None or b is None else a + b


# Compiled as one function so that it is traced once, although the primal function and its forward rule both run it.
@eqx.filter_jit
def _run(arguments: Any, valid: Valid, pool: bool) -> tuple[Any, Any]:
    """Return outputs and running statistics, and the store and what else the echo needs."""
    encoder, rows, x = arguments
    arrays, static = eqx.partition(rows, eqx.is_array)
    layers = jax.tree.leaves(arrays)[0].shape[0]
    batch, steps = x.shape[1:]
    length = block_length(steps, batch)
    number = steps // length
    places = max(1, layers - pool)

    def known(cell: Any, rows: Rows, valid: Valid) -> tuple[Any, Any]:
        """Return what is to be known of rows that a layer puts into the store."""
        return cell.moments(rows, valid), pooled(rows, valid) if pool else None

    def nothing(cell: Any) -> tuple[Any, Any]:
        rows = jnp.zeros((encoder.out_features, batch, length), x.dtype)
        return _tree.zeros_like(jax.eval_shape(lambda: known(cell, rows, jnp.zeros((batch, length), x.dtype))))

    def encode(block: Int[Array, ""], moments: Any) -> Any:
        rows = encoded(encoder, _steps(x, block, length))
        return _together(moments, first.moments(rows, _steps(valid, block, length)))

    def body(passed: Passed, row: Any) -> tuple[Passed, Any]:
        index, arrays = row
        cell, running = eqx.combine(arrays, static)

        def put(passed: Passed, rows: Rows, block: Int[Array, ""]) -> Passed:
            moments, sums = known(cell, rows, _steps(valid, block, length))
            place = index
            if pool:
                # Nobody needs the rows of the last layer, and they have no place: it puts back what it has taken.
                last, place = index == layers - 1, jnp.minimum(index, places - 1)
                rows = jnp.where(last, _taken(passed.store, place, block, length), rows)
            store = _put(passed.store, place, rows, block)
            return Passed(store, _together(passed.moments, moments), _together(passed.sums, sums))

        blocks = Blocks(
            number,
            length,
            batch,
            lambda passed, block: _inputs(index, encoder, x, passed.store, block, length),
            put,
        )
        (oscillators, layer), running = cell.fit(passed.moments, running)
        final, after = run_layer(oscillators, layer, cell.echo.nudge, blocks, Passed(passed.store, *nothing(cell)))
        return after, (running, (final, passed.moments))

    first, _ = eqx.combine(_tree.take(arrays, 0), static)
    store = jnp.zeros((places, encoder.out_features, batch, steps), x.dtype)
    moments, sums = nothing(first)
    passed = Passed(store, None if moments is None else jax.lax.fori_loop(0, number, encode, moments), sums)
    passed, (running, kept) = jax.lax.scan(body, passed, (jnp.arange(layers, dtype=jnp.int32), arrays))
    return (passed.sums if pool else passed.store[-1], running), (passed.store, kept)


@eqx.filter_custom_vjp
def _chained(arguments: Any, valid: Valid, pool: bool) -> Any:
    return _run(arguments, valid, pool)[0]


@_chained.def_fwd
def _chained_forward(perturbed: Any, arguments: Any, valid: Valid, pool: bool) -> tuple[Any, Any]:
    del perturbed
    return _run(arguments, valid, pool)


@_chained.def_bwd
def _chained_backward(kept: Any, bar: Any, perturbed: Any, arguments: Any, valid: Valid, pool: bool) -> Any:
    """Echo all layers, the last one first."""
    del perturbed
    encoder, rows, x = arguments
    arrays, static = eqx.partition(rows, eqx.is_array)
    (store, kept), (bar_y, _) = kept, bar
    layers = jax.tree.leaves(arrays)[0].shape[0]
    batch, steps = x.shape[1:]
    length = block_length(steps, batch)
    number = steps // length

    def bars(after: HandedBack, index: Any, rows: Rows, block: Int[Array, ""]) -> Rows:
        """Return the cotangents of the inputs of a layer, which have been computed again, or of the last outputs."""
        valid_ = _steps(valid, block, length)
        found = _taken(after.store, jnp.clip(index - 1, 0, after.store.shape[0] - 1), block, length)
        if after.bar_sums is not None:
            # Outputs that are pooled have no place.
            found = jnp.where(index == layers, jnp.zeros_like(found), found) + valid_[None] * after.bar_sums[..., None]
        if after.moments is not None and after.bar_moments is not None:
            found = found + after.moments.pull(after.bar_moments, rows, valid_)
        return found

    def body(after: HandedBack, row: Any) -> tuple[HandedBack, Any]:
        index, arrays, (final, moments) = row
        # The inputs of the first layer have no place: their cotangents replace those of its outputs.
        place = jnp.maximum(index - 1, 0)
        numbers, others = eqx.partition(arrays, eqx.is_inexact_array)

        def fit(numbers: Any, moments: Any) -> Any:
            cell, running = eqx.combine(numbers, others, static)
            return eqx.filter(cell.fit(moments, running)[0], eqx.is_inexact_array)

        cell, running = eqx.combine(arrays, static)
        (oscillators, layer), _ = cell.fit(moments, running)
        _, pull = jax.vjp(fit, numbers, moments)
        blocks = Blocks(
            number,
            length,
            batch,
            lambda after, block: _inputs(index, encoder, x, after.store, block, length),
            lambda after, rows, block: eqx.tree_at(
                lambda after: after.store, after, _put(after.store, place, rows, block)
            ),
        )
        read, after, check = echo_layer(
            oscillators,
            layer,
            cell.echo,
            blocks,
            lambda after, rows, block: bars(after, index + 1, rows, block),
            final,
            after,
        )
        read, zero = check((read, jnp.zeros((), x.dtype)))
        bar_row, bar_moments = pull(read)
        # What has not passed the check does not go further.
        store = after.store.at[place, 0, 0, 0].add(zero)
        return HandedBack(store, bar_moments, moments, _tree.zeros_like(after.bar_sums)), bar_row

    if not pool:
        store = store.at[-1].set(bar_y)
    nothing = _tree.zeros_like(_tree.take(kept[1], 0))
    after = HandedBack(store, nothing, nothing, bar_y if pool else None)
    order = jnp.arange(layers, dtype=jnp.int32)
    after, bar_rows = jax.lax.scan(body, after, (order, arrays, kept), reverse=True)

    def encode(block: Int[Array, ""], carry: Any) -> Any:
        bar_encoder, bar_x = carry
        rows, pull = jax.vjp(encoded, encoder, _steps(x, block, length))
        read, bar = pull(bars(after, 0, rows, block))
        return _tree.add(bar_encoder, read), jax.lax.dynamic_update_slice_in_dim(bar_x, bar, block * length, 2)

    read = jax.lax.fori_loop(0, number, encode, _tree.zeros_like((encoder, x)))
    return read[0], bar_rows, read[1]
