"""A chain of layers over whole sequences, and its echo, in one shared store of rows."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .._internal import _tree
from ._hssm_block import Cell
from ._layer import echo_layer, run_layer
from ._layout import Rows, Valid, encode
from ._norm import Moments
from ._sequence import Blocks, block_length

# The layer outputs that another layer or the caller needs; in the backward pass, their cotangents.
Store = Float[Array, "slots features batch steps"]


def run_chain(
    encoder: eqx.nn.Linear, cells: tuple[Cell, Any], x: Rows, valid: Valid, *, pool: bool
) -> tuple[Rows | Float[Array, "features batch"], Any]:
    r"""Encode sequences, run them through layers of equal structure, and return the outputs and running statistics.

    All layers share one store of rows. A layer reads its inputs block by block, puts its outputs into the next slot,
    and accumulates their statistics. In the backward pass the echo of a layer reads its inputs for the last time and
    overwrites them with their cotangents. So nothing is copied, and the backward pass needs no store of its own. The
    encoder's output is not stored: its input is narrow, so it is computed again when needed.

    Args:
        encoder: linear layer before the first cell.
        cells: layers, and their running statistics, stacked on a leading axis.
        x: sequences, shape (inputs, batch, steps), padded to whole blocks.
        valid: 1 for valid steps, 0 for masked ones.
        pool: whether to return the sums over the valid steps instead of all rows.
    """
    return _chain((encoder, cells, x), valid, pool)


def pooled(x: Rows, valid: Valid) -> Float[Array, "features batch"]:
    """Return the sums over the valid steps."""
    return jnp.sum(valid[None] * x, -1)


class ForwardCarry(eqx.Module):
    """The store during the forward pass, with the moments of the layer's outputs, and their sums if it pools."""

    store: Store
    moments: Moments | None
    sums: Float[Array, "features batch"] | None


class BackwardCarry(eqx.Module):
    """The cotangents of one layer's outputs: in the store, except for those through moments and sums."""

    store: Store
    bar_moments: Moments | None
    moments: Moments | None
    bar_sums: Float[Array, "features batch"] | None


def _start(slot: Any, block: Int[Array, ""], length: int) -> list[Any]:
    return [jnp.asarray(i, jnp.int32) for i in (slot, 0, 0, block * length)]


def _take(store: Store, slot: Any, block: Int[Array, ""], length: int) -> Rows:
    """Return a block of rows from the store.

    Without the barrier XLA may fuse the read into a later use, after a write, and then copies the whole store.
    """
    rows = jax.lax.dynamic_slice(store, _start(slot, block, length), (1, *store.shape[1:3], length))
    return jax.lax.optimization_barrier(rows[0])


def _put(store: Store, slot: Any, rows: Rows, block: Int[Array, ""]) -> Store:
    return jax.lax.dynamic_update_slice(store, rows[None], _start(slot, block, rows.shape[-1]))


def _steps(x: Array, block: Int[Array, ""], length: int) -> Array:
    """Return a block of steps of an array outside the store."""
    return jax.lax.dynamic_slice_in_dim(x, block * length, length, x.ndim - 1)


def _inputs(
    index: Int[Array, ""], encoder: eqx.nn.Linear, x: Rows, store: Store, block: Int[Array, ""], length: int
) -> Rows:
    """Return a block of inputs of a layer: from the encoder for the first layer, from the store for the others."""
    return jax.lax.cond(
        index == 0,
        lambda: encode(encoder, _steps(x, block, length)),
        lambda: _take(store, jnp.maximum(index - 1, 0), block, length),
    )


def _merge(a: Any, b: Any) -> Any:
    """Return the statistics of two blocks of rows together, or `None` without statistics."""
    return None if a is None or b is None else a + b


# Compiled as one function: the primal function and its forward rule both call it, and it is traced once.
@eqx.filter_jit
def _run(arguments: Any, valid: Valid, pool: bool) -> tuple[Any, Any]:
    """Return outputs and running statistics, and the residuals of the echo: the store, states and moments."""
    encoder, rows, x = arguments
    arrays, static = eqx.partition(rows, eqx.is_array)
    layers = jax.tree.leaves(arrays)[0].shape[0]
    batch, steps = x.shape[1:]
    length = block_length(steps, batch)
    number = steps // length
    slots = max(1, layers - pool)

    def known(cell: Cell, rows: Rows, valid: Valid) -> tuple[Any, Any]:
        """Return the moments of rows that a layer puts into the store, and their sums if it pools."""
        return cell.moments(rows, valid), pooled(rows, valid) if pool else None

    def nothing(cell: Cell) -> tuple[Any, Any]:
        rows = jnp.zeros((encoder.out_features, batch, length), x.dtype)
        return _tree.zeros_like(jax.eval_shape(lambda: known(cell, rows, jnp.zeros((batch, length), x.dtype))))

    def add_block(block: Int[Array, ""], moments: Any) -> Any:
        rows = encode(encoder, _steps(x, block, length))
        return _merge(moments, first.moments(rows, _steps(valid, block, length)))

    def body(passed: ForwardCarry, row: Any) -> tuple[ForwardCarry, Any]:
        index, arrays = row
        cell, running = eqx.combine(arrays, static)

        def put(passed: ForwardCarry, rows: Rows, block: Int[Array, ""]) -> ForwardCarry:
            moments, sums = known(cell, rows, _steps(valid, block, length))
            slot = index
            if pool:
                # The rows of the last layer are only summed and have no slot. The slot before keeps its rows.
                last, slot = index == layers - 1, jnp.minimum(index, slots - 1)
                rows = jnp.where(last, _take(passed.store, slot, block, length), rows)
            store = _put(passed.store, slot, rows, block)
            return ForwardCarry(store, _merge(passed.moments, moments), _merge(passed.sums, sums))

        blocks = Blocks(
            number,
            length,
            batch,
            lambda passed, block: _inputs(index, encoder, x, passed.store, block, length),
            put,
        )
        (oscillators, layer), running = cell.fit(passed.moments, running)
        start = ForwardCarry(passed.store, *nothing(cell))
        record, _, after = run_layer(oscillators, layer, cell.fixed_gradient, blocks, start)
        return after, (running, (record, passed.moments))

    first, _ = eqx.combine(_tree.take(arrays, 0), static)
    store = jnp.zeros((slots, encoder.out_features, batch, steps), x.dtype)
    moments, sums = nothing(first)
    passed = ForwardCarry(store, None if moments is None else jax.lax.fori_loop(0, number, add_block, moments), sums)
    passed, (running, kept) = jax.lax.scan(body, passed, (jnp.arange(layers, dtype=jnp.int32), arrays))
    return (passed.sums if pool else passed.store[-1], running), (passed.store, kept)


@eqx.filter_custom_vjp
def _chain(arguments: Any, valid: Valid, pool: bool) -> Any:
    return _run(arguments, valid, pool)[0]


@_chain.def_fwd
def _chain_forward(perturbed: Any, arguments: Any, valid: Valid, pool: bool) -> tuple[Any, Any]:
    del perturbed
    return _run(arguments, valid, pool)


@_chain.def_bwd
def _chain_backward(kept: Any, bar: Any, perturbed: Any, arguments: Any, valid: Valid, pool: bool) -> Any:
    """Run the echoes of all layers, the last one first."""
    del perturbed
    encoder, rows, x = arguments
    arrays, static = eqx.partition(rows, eqx.is_array)
    (store, kept), (bar_y, _) = kept, bar
    layers = jax.tree.leaves(arrays)[0].shape[0]
    batch, steps = x.shape[1:]
    length = block_length(steps, batch)
    number = steps // length

    def bars(after: BackwardCarry, index: Any, rows: Rows, block: Int[Array, ""]) -> Rows:
        """Return the cotangents of `rows`: of the inputs of layer `index`, or of the outputs of the last layer."""
        valid_ = _steps(valid, block, length)
        found = _take(after.store, jnp.clip(index - 1, 0, after.store.shape[0] - 1), block, length)
        if after.bar_sums is not None:
            # Pooled outputs have no slot.
            found = jnp.where(index == layers, jnp.zeros_like(found), found) + valid_[None] * after.bar_sums[..., None]
        if after.moments is not None and after.bar_moments is not None:
            found = found + after.moments.pull(after.bar_moments, rows, valid_)
        return found

    def body(after: BackwardCarry, row: Any) -> tuple[BackwardCarry, Any]:
        index, arrays, (record, moments) = row
        # The inputs of the first layer have no slot. Their cotangents overwrite those of its outputs.
        slot = jnp.maximum(index - 1, 0)
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
                lambda after: after.store, after, _put(after.store, slot, rows, block)
            ),
        )
        read, after, check = echo_layer(
            oscillators,
            layer,
            cell.fixed_gradient,
            blocks,
            lambda after, rows, block: bars(after, index + 1, rows, block),
            record,
            after,
        )
        read, zero = check((read[:2], jnp.zeros((), x.dtype)))
        bar_row, bar_moments = pull(read)
        # All cotangents depend on the check, also those in the store.
        store = after.store.at[slot, 0, 0, 0].add(zero)
        return BackwardCarry(store, bar_moments, moments, _tree.zeros_like(after.bar_sums)), bar_row

    if not pool:
        store = store.at[-1].set(bar_y)
    nothing = _tree.zeros_like(_tree.take(kept[1], 0))
    after = BackwardCarry(store, nothing, nothing, bar_y if pool else None)
    order = jnp.arange(layers, dtype=jnp.int32)
    after, bar_rows = jax.lax.scan(body, after, (order, arrays, kept), reverse=True)

    def add_block(block: Int[Array, ""], carry: Any) -> Any:
        bar_encoder, bar_x = carry
        rows, pull = jax.vjp(encode, encoder, _steps(x, block, length))
        read, bar = pull(bars(after, 0, rows, block))
        return _tree.add(bar_encoder, read), jax.lax.dynamic_update_slice_in_dim(bar_x, bar, block * length, 2)

    read = jax.lax.fori_loop(0, number, add_block, _tree.zeros_like((encoder, x)))
    return read[0], bar_rows, read[1]
