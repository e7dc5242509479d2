"""A chain of layers over whole sequences, and its echo, in one store of rows."""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .. import _tree
from ..gradients import Echo
from ._norm import Moments
from ._oscillators import AbstractOscillators
from ._rows import Rows, Valid, mixed
from ._sequence import AbstractLayer, Blocks, block_length, echo_layer, run_layer

# The inputs of every layer, and, in the last place, the outputs and then their cotangents.
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
    place. On the way back the echo of a layer reads the cotangents of its outputs from the last place, and puts those
    of its inputs there. So there is nothing to copy, and the backward pass needs no memory of its own.

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


def _cut(x: Rows, source: Any, target: Any, rows: Callable[..., Rows]) -> Blocks:
    """Return blocks of rows, taken from one place of a store and put into another."""
    batch, steps = x.shape[1:]
    length = block_length(steps, batch)
    return Blocks(
        steps // length,
        length,
        batch,
        lambda store, block: rows(store, source, block, length),
        lambda store, rows, block: _put(store, target, rows, block),
    )


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


def _together(a: Moments | None, b: Moments | None) -> Moments | None:
    """Return the moments of all their rows, where a layer asks for moments."""
    return b if a is None or b is None else a + b


# Compiled as one function so that it is traced once, although the primal function and its forward rule both run it.
@eqx.filter_jit
def _run(arguments: Any, valid: Valid, pool: bool) -> tuple[Any, Any]:
    """Return outputs and running statistics, and the store and what else the echo needs."""
    encoder, rows, x = arguments
    arrays, static = eqx.partition(rows, eqx.is_array)
    layers = jax.tree.leaves(arrays)[0].shape[0]

    def encode(block: Int[Array, ""], store: Store) -> Store:
        return _put(store, 0, mixed(encoder, _steps(x, block, blocks.length)), block)

    def body(store: Store, row: Any) -> tuple[Store, Any]:
        place, arrays = row
        cell, running = eqx.combine(arrays, static)
        blocks = _cut(x, place, place + 1, _rows)

        def measure(block: Int[Array, ""], moments: Any) -> Any:
            return _together(moments, cell.moments(blocks.take(store, block), _steps(valid, block, blocks.length)))

        moments = jax.eval_shape(lambda: measure(jnp.int32(0), None))
        moments = jax.lax.fori_loop(0, blocks.number, measure, _tree.zeros_like(moments))
        (oscillators, layer), running = cell.fit(moments, running)
        final, store = run_layer(oscillators, layer, cell.echo.nudge, blocks, store)
        return store, (running, (final, moments))

    blocks = _cut(x, layers, 0, _rows)
    store = jnp.zeros((layers + 1, encoder.out_features, *x.shape[1:]), x.dtype)
    store = jax.lax.fori_loop(0, blocks.number, encode, store)
    store, (running, kept) = jax.lax.scan(body, store, (jnp.arange(layers, dtype=jnp.int32), arrays))
    y = store[layers]
    if pool:

        def add(block: Int[Array, ""], sums: Any) -> Any:
            return sums + pooled(blocks.take(store, block), _steps(valid, block, blocks.length))

        y = jax.lax.fori_loop(0, blocks.number, add, jnp.zeros(store.shape[1:3], store.dtype))
    return (y, running), (store, kept)


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
    last = store.shape[0] - 1
    store = store.at[last].set(bar_y[..., None] * valid[None] if pool else bar_y)

    def body(store: Store, row: Any) -> tuple[Store, Any]:
        place, arrays, (final, moments) = row
        numbers, others = eqx.partition(arrays, eqx.is_inexact_array)

        def fit(numbers: Any, moments: Any) -> Any:
            cell, running = eqx.combine(numbers, others, static)
            return eqx.filter(cell.fit(moments, running)[0], eqx.is_inexact_array)

        cell, running = eqx.combine(arrays, static)
        (oscillators, layer), _ = cell.fit(moments, running)
        _, pull = jax.vjp(fit, numbers, moments)
        blocks = _cut(x, place, last, _taken)
        bars, store, check = echo_layer(
            oscillators,
            layer,
            cell.echo,
            blocks,
            lambda store, block: _taken(store, last, block, blocks.length),
            final,
            store,
        )
        bars, zero = check((bars, jnp.zeros((), store.dtype)))
        bar_row, bar_moments = pull(bars)
        # What has not passed the check does not go further.
        store = store.at[last, 0, 0, 0].add(zero)

        def spread(block: Int[Array, ""], store: Store) -> Store:
            rows, bar = (_taken(store, p, block, blocks.length) for p in (place, last))
            more = moments.pull(bar_moments, rows, _steps(valid, block, blocks.length))
            return _put(store, last, bar + more, block)

        if moments is not None:
            store = jax.lax.fori_loop(0, blocks.number, spread, store)
        return store, bar_row

    order = jnp.arange(last, dtype=jnp.int32)
    store, bar_rows = jax.lax.scan(body, store, (order, arrays, kept), reverse=True)
    blocks = _cut(x, last, last, _rows)

    def encode(block: Int[Array, ""], carry: Any) -> Any:
        bar_encoder, bar_x = carry
        _, pull = jax.vjp(mixed, encoder, _steps(x, block, blocks.length))
        read, rows = pull(blocks.take(store, block))
        return _tree.add(bar_encoder, read), jax.lax.dynamic_update_slice_in_dim(bar_x, rows, block * blocks.length, 2)

    bars = jax.lax.fori_loop(0, blocks.number, encode, _tree.zeros_like((encoder, x)))
    return bars[0], bar_rows, bars[1]
