"""A stack of blocks over whole sequences."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray, PyTree

from .._internal import _tree
from ..gradients import Backprop
from ._chain import pooled, run_chain
from ._dropout import dropout_seeds
from ._hssm_block import HSSMBlock
from ._layout import Rows, Valid, encode
from ._norm import BatchNorm


@jax.custom_vjp
def _stack(rows: tuple[PyTree, ...]) -> PyTree:
    """Stack the leaves of all rows.

    The reverse rule unstacks with indices hidden from the compiler. So later operations on equal shapes, such as an
    optimiser's, are compiled once and not once per index.
    """
    return jax.tree.map(lambda *a: jnp.stack(a), *rows)


def _unstack(rows: int, bar: PyTree) -> tuple[tuple[PyTree, ...]]:
    bar, indices = jax.lax.optimization_barrier((bar, [jnp.asarray(i, jnp.int32) for i in range(rows)]))
    return (jax.lax.optimization_barrier(tuple(_tree.take(bar, i) for i in indices)),)


_stack.defvjp(lambda rows: (_stack(rows), len(rows)), _unstack)


def run_stack(
    encoder: eqx.nn.Linear,
    blocks: tuple[HSSMBlock, ...],
    x: Rows,
    state: Any,
    valid: Valid,
    key: PRNGKeyArray | None,
    *,
    pool: bool,
) -> tuple[Rows, Any]:
    """Encode rows and run them through all blocks.

    Blocks of equal structure run in one loop, so that only one of them is compiled.

    Args:
        encoder: linear layer before the first block.
        blocks: the blocks.
        x: sequences, shape (inputs, batch, steps).
        state: state of the batch norms.
        valid: 1 for valid steps, 0 for masked ones, shape (batch, steps).
        key: random key for dropout.
        pool: whether to return the sums over the valid steps, shape (hidden, batch), instead of all rows.
    """
    seeds = None if key is None else dropout_seeds(key, len(blocks))
    rows = []
    for block in blocks:
        running = block.statistics(state)
        # Every batch norm has its own state index. Without it, the blocks have equal structure.
        block = block if running is None else eqx.tree_at(lambda b: b.norm.running, block, None)
        rows.append((block, running))
    arrays, statics = zip(*(eqx.partition(row, eqx.is_array) for row in rows), strict=True)
    shapes = [jax.tree.map(lambda a: (a.shape, a.dtype), row) for row in arrays]
    if eqx.tree_equal(*shapes) and eqx.tree_equal(*statics) is True:
        static = []

        def cell_of(row: Any, seed: Any) -> Any:
            block, running = eqx.combine(row, statics[0])
            row, rest = eqx.partition((block.cell(seed), running), eqx.is_array)
            static.append(rest)
            return row

        numbers, others = zip(*(eqx.partition(row, eqx.is_inexact_array) for row in arrays), strict=True)
        stacked = eqx.combine(_stack(numbers), jax.tree.map(lambda *a: jnp.stack(a), *others))
        cells = jax.vmap(cell_of)(stacked, seeds)
        echo = not isinstance(blocks[0].unit.gradient, Backprop)
        if echo and not (isinstance(norm := blocks[0].norm, BatchNorm) and norm.shared):
            x, found = run_chain(encoder, eqx.combine(cells, static[0]), x, valid, pool=pool)
            pool = False
        else:
            # No chain: a custom reverse rule cannot sum statistics over the examples of a `vmap`.
            def body(x: Rows, row: Any) -> tuple[Rows, Any]:
                cell, running = eqx.combine(row, static[0])
                return cell(x, running, valid)

            # An echo stores little more than the input of a block. For backpropagation, checkpoint it.
            body = body if echo else jax.checkpoint(body, prevent_cse=False)
            x, found = jax.lax.scan(body, encode(encoder, x), cells)
        found = [jax.tree.map(lambda a, i=i: a[i], found) for i in range(len(rows))]
    else:
        x, found = encode(encoder, x), []
        for i, (block, running) in enumerate(rows):
            seed = None if seeds is None else seeds[i]
            x, running = block(x, running, valid=valid, seed=seed)
            found.append(running)
    for block, running in zip(blocks, found, strict=True):
        if isinstance(block.norm, BatchNorm) and not block.norm.inference:
            state = state.set(block.norm.running, running)
    return pooled(x, valid) if pool else x, state
