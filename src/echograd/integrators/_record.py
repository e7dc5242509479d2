r"""What friction destroys: momenta in fixed point that it merges, and the record of which one it was.

With momenta in units of the grid spacing, friction takes the integer $P$ to $P' = P - R$, $R = {\rm round}(\varepsilon
P)$. Several $P$ may become the same $P'$. With $1/f = 1/(1 - \varepsilon)$ and the rounding error $\varphi$,
$|\varphi| \le 1/2$,

$$R = (1/f - 1)\, P' + \varphi / f,$$

so $R$ is one of the integers within $1/2f$ of $(1/f - 1) P'$. They follow from $P'$. Where there is more than one, the
record keeps which: for $f \ge 1/2$ one bit at most, and $2\gamma h$ bits on average.

The bits of a momentum are pushed onto a word of its own. Words are put away together when one of them is nearly full.
Between times they are shifted from momentum to momentum, so that they fill evenly if friction is uneven.
"""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree, UInt

from .._internal import _tree
from ._grid import rounded

# Steps between two looks at how full the words are.
STEPS = 8

# (1/f - 1) P' is rounded to this part of the grid spacing. Then no later operation on it rounds, so compilers may fuse
# multiplications and additions as they like: both runs find the same integers.
_FINE = 2.0**-16

# Momenta searched about the solution of P - loss(P) = P'.
_NEAR = (-2, -1, 0, 1, 2)


class Record(eqx.Module):
    """Which of the momenta that friction merges it was.

    Attributes:
        words: the words in use, one for every momentum, flat; a leading 1, then the newest bit last.
        rows: words that were put away, with a spare row at the end.
        ends: the block of steps at whose end each row was put away.
        row: how many rows are used; more than there are if the record is too small.
        block: how many blocks of steps are recorded.
        room: bits that a word must have free for the next block.
    """

    words: list[UInt[Array, " size"]]
    rows: list[UInt[Array, "rows size"]]
    ends: Int[Array, " rows"]
    row: Int[Array, ""]
    block: Int[Array, ""]
    room: Int[Array, ""]

    @property
    def overflown(self) -> Array:
        """Whether rows were lost because the record is too small."""
        return self.row >= self.rows[0].shape[0]


def word_of(dtype: Any) -> Any:
    """Return the unsigned integers as wide as these floats."""
    return {2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint64}[jnp.dtype(dtype).itemsize]


def capacity(dtype: Any) -> int:
    """Return how many bits a word holds for sure before it is put away, at one bit a step."""
    return 8 * jnp.dtype(dtype).itemsize - 1 - STEPS


def empty_record(p: PyTree, rows: int, strongest: Float[Array, ""]) -> Record:
    """Return a record without bits.

    Args:
        p: the momenta.
        rows: how many rows of words it can hold.
        strongest: largest part of a momentum that friction takes in a step.
    """
    leaves = jax.tree.leaves(p)
    words = [jnp.ones(x.size, word_of(x.dtype)) for x in leaves]
    bits = _bits(jnp.floor(1 / (1 - jax.lax.stop_gradient(strongest)) + 0.01) + 1)
    spare = [jnp.zeros((rows + 1, w.size), w.dtype) for w in words]
    none = jnp.zeros((), jnp.int32)
    return Record(words, spare, jnp.zeros(rows + 1, jnp.int32), none, none, STEPS * bits)


def put_away(record: Record) -> Record:
    """Shift the words, and put them away if one of them may not hold the bits of the next steps."""
    words = [jnp.roll(w, _stride(w.size)) for w in record.words]
    full = [jnp.max(w) >= jnp.asarray(1, w.dtype) << _least_full(w, record.room) for w in words]
    full = jnp.any(jnp.stack(full))
    rows, ends = _tree.put((record.rows, record.ends), record.row, (words, record.block))
    words = [jnp.where(full, jnp.ones_like(w), w) for w in words]
    return Record(words, rows, ends, record.row + full.astype(jnp.int32), record.block + 1, record.room)


def taken_back(record: Record) -> Record:
    """Undo `put_away`."""
    block, last = record.block - 1, jnp.maximum(record.row - 1, 0)
    was_full = (record.row > 0) & (record.ends[last] == block)
    words = [jnp.where(was_full, x, w) for x, w in zip(_tree.take(record.rows, last), record.words, strict=True)]
    words = [jnp.roll(w, -_stride(w.size)) for w in words]
    return Record(words, record.rows, record.ends, jnp.where(was_full, last, record.row), block, record.room)


def _least_full(word: Array, room: Int[Array, ""]) -> Array:
    width = 8 * word.dtype.itemsize
    return jnp.clip(width - 1 - room, 1, width - 1).astype(word.dtype)


def _stride(size: int) -> int:
    """Return a shift that brings every word to every momentum, and to distant ones soon: the golden section."""
    stride = round(0.381966 * size)
    while stride > 1 and math.gcd(size, stride) > 1:
        stride -= 1
    return stride


def scaled(p: PyTree, lost: PyTree, grid: PyTree, record: Record | None) -> tuple[PyTree, Record | None]:
    r"""Return $p - \varepsilon p$ on the grid, and the record with what is needed to undo it.

    Args:
        p: momenta.
        lost: $\varepsilon$ in the tree of the momenta, with `None` for those without friction.
        grid: spacings, or `None` for plain floats.
        record: `None` to keep none.
    """
    found = []
    for x, part, spacing, word in _rows(p, lost, grid, record):
        if part is None:
            found.append((x, word))
            continue
        if word is not None:
            x = jax.lax.optimization_barrier(x)
        loss = rounded(part * x, spacing)
        after = x - loss
        if word is not None:
            after, loss = jax.lax.optimization_barrier((after, loss))
            least, count = _losses(after, part, spacing)
            word = _recorded(loss * (1 / spacing) - least, count, word)
        found.append((after, word))
    return _collected(p, record, found)


def unscaled(p: PyTree, lost: PyTree, grid: PyTree, record: Record) -> tuple[PyTree, Record]:
    """Undo `scaled`: return the momenta before, and the record without the bits that this took."""
    found = []
    for after, part, spacing, word in _rows(p, lost, grid, record):
        if part is None:
            found.append((after, word))
            continue
        least, count = _both(*_losses(after, part, spacing))
        which, word = _popped(word, count, after)
        before = jax.lax.optimization_barrier(after + spacing * (least + which))
        found.append((_with_derivative_of(after, part, before), word))
    return _collected(p, record, found)


def decreased(
    p: PyTree, loss: Callable[[PyTree], PyTree], grid: PyTree, record: Record | None
) -> tuple[PyTree, Record | None]:
    """Return `p - loss(p)` on the grid, where it increases with `p` number by number; otherwise as `scaled`."""
    after = _tree.subtract(p, rounded(loss(p), grid))
    if grid is None or record is None:
        return after, record
    found = []
    for (x, y, _, word), (near, fits) in zip(
        _rows(p, after, grid, record), _candidates(after, loss, grid), strict=True
    ):
        which = jnp.where(jnp.any(fits & (near == x[None]), 0), _count(fits & (near < x[None]), x), -1)
        found.append((y, _recorded(which, _count(fits, x), word)))
    return _collected(p, record, found)


def undecreased(p: PyTree, loss: Callable[[PyTree], PyTree], grid: PyTree, record: Record) -> tuple[PyTree, Record]:
    """Undo `decreased`."""
    found = []
    for (after, _, _, word), (near, fits) in zip(_rows(p, p, grid, record), _candidates(p, loss, grid), strict=True):
        which, word = _popped(word, _count(fits, after), after)
        chosen = fits & (jnp.cumsum(fits, 0).astype(after.dtype) == which[None] + 1)
        before = jnp.sum(jnp.where(chosen, near, 0), 0)
        found.append((jnp.where(jnp.any(chosen, 0), before, jnp.nan), word))
    before, record = _collected(p, record, found)
    before = jax.lax.stop_gradient(before)
    value, slope = jax.jvp(loss, (before,), (jax.tree.map(jnp.ones_like, before),))
    # Its derivative by parameters, at fixed momenta.
    moved = jax.tree.map(lambda x, v: x + (v - jax.lax.stop_gradient(v)), p, value)
    return jax.tree.map(_with_derivative_of, moved, slope, before), record


def _rows(p: PyTree, other: PyTree, grid: PyTree, record: Record | None) -> list[tuple[Any, ...]]:
    """Return array of momenta, its entry in another tree, spacing and words, for every array of momenta."""
    leaves, structure = jax.tree.flatten(p)
    nothing = [None] * len(leaves)
    spacings = nothing if grid is None else structure.flatten_up_to(grid)
    words = nothing if record is None or grid is None else record.words
    return list(zip(leaves, structure.flatten_up_to(other), spacings, words, strict=True))


def _collected(p: PyTree, record: Any, found: list[tuple[Array, Any]]) -> tuple[PyTree, Any]:
    momenta = jax.tree.unflatten(jax.tree.structure(p), [x for x, _ in found])
    if record is None:
        return momenta, None
    return momenta, eqx.tree_at(lambda r: r.words, record, [word for _, word in found])


@jax.custom_jvp
def _with_derivative_of(after: Array, lost: Array, before: Array) -> Array:
    r"""Return `before`, with the derivative of $x' / (1 - \varepsilon)$."""
    return before


@_with_derivative_of.defjvp
def _with_derivative_of_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    after, lost, before = primals
    slope = (tangents[0] + before * tangents[1]) / (1 - lost)
    return _with_derivative_of(after, lost, before), slope


def _losses(after: Array, lost: Array, spacing: Array) -> tuple[Array, Array]:
    r"""Return the least integer $R$ that may have led to these momenta, and how many may have."""
    after, lost = jax.lax.stop_gradient((after * (1 / spacing), lost))
    gained = lost / (1 - lost)
    middle = rounded(gained * after, jnp.asarray(_FINE, after.dtype))
    # The products above and in `scaled`, and `gained`, have rounding errors; for these the interval is a little wider.
    slack = 2 * float(jnp.finfo(after.dtype).eps) * jnp.abs(middle) + _FINE
    reach = (0.5 + 0.5 * gained) + slack
    least = jnp.ceil(middle - reach)
    return least, jnp.floor(middle + reach) - least + 1


def _both(x: Array, y: Array) -> tuple[Array, Array]:
    """Return two arrays that XLA computes together, once for all their uses."""
    both = jax.lax.optimization_barrier(jax.lax.complex(x, y))
    return jnp.real(both), jnp.imag(both)


def _candidates(after: PyTree, loss: Callable[[PyTree], PyTree], grid: PyTree) -> list[tuple[Array, Array]]:
    """Return numbers near the solution of `x - loss(x) = after`, and whether they lead there, for every array."""
    after = x = jax.lax.stop_gradient(after)
    for _ in range(4):  # Newton's method
        value, slope = jax.jvp(loss, (x,), (jax.tree.map(jnp.ones_like, x),))
        x = jax.tree.map(lambda x, v, s, y: x - (x - v - y) / (1 - s), x, value, slope, after)
    middle = rounded(x, grid)
    near = [jax.tree.map(lambda x, g, j=j: x + j * g, middle, grid) for j in _NEAR]
    reached = [_tree.subtract(x, rounded(loss(x), grid)) for x in near]
    fits = [jax.tree.map(jnp.equal, x, after) for x in reached]
    stacked = [jax.tree.leaves(jax.tree.map(lambda *x: jnp.stack(x), *trees)) for trees in (near, fits)]
    return list(zip(*stacked, strict=True))


def _count(flags: Array, like: Array) -> Array:
    return jnp.sum(flags, 0).astype(like.dtype)


def _recorded(which: Array, count: Array, word: Array) -> Array:
    """Return the word with the number `which` of `count`.

    A number that is none of them spoils the word. Then the way back does not arrive at the initial bits, which is
    checked.
    """
    shift = _bits(count).reshape(-1).astype(word.dtype)
    return (word << shift) | which.reshape(-1).astype(jnp.int32).astype(word.dtype)


def _popped(word: Array, count: Array, like: Array) -> tuple[Array, Array]:
    shift = _bits(count).reshape(-1).astype(word.dtype)
    rest = word >> shift
    which = (word ^ (rest << shift)).astype(jnp.int32).astype(like.dtype)
    return jax.lax.optimization_barrier(which.reshape(like.shape)), rest


def _bits(count: Array) -> Int[Array, "..."]:
    """Return how many bits tell apart so many numbers, at most 16: 0, 1, 2 or 4."""
    return sum(more * (count > n).astype(jnp.int32) for more, n in ((1, 1), (1, 2), (2, 4)))  # pyright: ignore
