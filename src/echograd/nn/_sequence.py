"""Sequences cut into blocks of steps."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

# The length of a block is a multiple of this many steps.
_UNIT = 32

# The overhead of a block, in rows.
_OVERHEAD = 256

# Rows outside of a layer, where the features may also come last.
Outer = Float[Array, "..."]


def limits() -> tuple[int, int]:
    """Return the largest number of rows (steps × batch) in a block, and of steps, as `vmap` may hide a batch.

    On a CPU, a block is large enough for efficient products and small enough for the cache. An accelerator launches the
    operations of every block one by one, so its blocks are longer.
    """
    return (6144, 1536) if jax.default_backend() == "cpu" else (32_768, 4096)


def _conflicts(stride: int) -> bool:
    """Return whether numbers at this stride share few cache sets: if it is a multiple of a large power of two.

    The features of a row are one block apart. At such a stride, transposing rows takes three times as long.
    """
    return stride % 256 == 0


def block_length(steps: int, batch: int) -> int:
    """Return the number of steps of a block: efficient, and with little padding at the end."""
    rows, longest = limits()
    longest = max(_UNIT, min(rows // batch, longest) // _UNIT * _UNIT)
    if steps <= longest:
        return math.ceil(steps / _UNIT) * _UNIT

    def cost(length: int) -> float:
        return math.ceil(steps / length) * (length + _OVERHEAD / batch) * (1.1 if _conflicts(batch * length) else 1)

    return min(range(longest, longest // 2, -_UNIT), key=cost)


def cuts(steps: int, batch: int) -> list[tuple[int, int]]:
    """Return pieces that need no padding, in their order: the steps of each, and of its blocks."""
    length = block_length(steps, batch)
    rest, tail = steps % length, steps % _UNIT
    pieces = (steps - rest, length), (rest - tail, rest - tail), (tail, tail)
    return [piece for piece in pieces if piece[0]]


def pad(x: Outer, axis: int, length: int) -> Outer:
    """Return a sequence padded with zeros to whole blocks."""
    over = -x.shape[axis] % length
    return jnp.pad(x, [(0, over * (i == axis)) for i in range(x.ndim)]) if over else x


class Sequence(eqx.Module):
    """Rows in blocks of steps.

    The last block may reach beyond the end. Only this block is padded, in its own array: to pad the rows would copy all
    of them.
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
        return Sequence(rows, pad(end, axis, length) if steps % length else None, length, axis)

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
        """Return the sequence with one block of rows replaced."""
        last = self.last
        if last is not None:
            if self.number == 1:
                return Sequence(self.rows, rows, self.length, self.axis)
            ends = block == self.number - 1
            # For the last block the slice would be clamped to earlier rows. So they are written back unchanged.
            rows, last = jnp.where(ends, self._slice(block), rows), jnp.where(ends, rows, last)
        return Sequence(self._put(rows, block * self.length), last, self.length, self.axis)

    def _put(self, rows: Outer, start: Int[Array, ""]) -> Outer:
        examples = rows.shape[0]
        if self.axis == 2 or not _conflicts(examples * self.length):
            return jax.lax.dynamic_update_slice_in_dim(self.rows, rows, start, self.axis)

        # This transposes the rows. One example at a time, the stride between features causes no cache conflicts.
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
    """How a layer reads and writes blocks of rows.

    The caller supplies `take` and `put` on a store of its own: a unit has one array for its inputs and one for its
    outputs, a model has one store for all layers.
    """

    number: int
    length: int
    batch: int
    take: Callable[[Any, Int[Array, ""]], Outer] = eqx.field(static=True)
    put: Callable[[Any, Outer, Int[Array, ""]], Any] = eqx.field(static=True)
