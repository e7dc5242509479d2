"""Loops over large arrays that use all cores of a CPU."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from .._internal import _tree

# Bytes. XLA parallelises an operation if its result is at least this large.
_LARGE = 1 << 20


def on_all_cores(first: Any, end: Any, body: Callable[[Int[Array, ""], Any], Any], carry: Any) -> Any:
    """Return `jax.lax.fori_loop(first, end, body, carry)` with operations on large arrays run on all cores of a CPU.

    XLA fuses a simple loop into one function, which runs on a single core however large the arrays are. It does not
    fuse a loop that has a matrix product: its operations run one by one, and those on large arrays on several cores. So
    we add a small dummy product. It only stops XLA from fusing the loop.
    """
    if max((x.size * x.dtype.itemsize for x in jax.tree.leaves(carry)), default=0) < _LARGE:
        return jax.lax.fori_loop(first, end, body, carry)

    def beside_a_product(k: Any, carry: Any) -> Any:
        return body(k, carry[0]), jnp.dot(carry[1], carry[1])

    # These stay zero, but the compiler does not know it.
    carry, zeros = jax.lax.fori_loop(first, end, beside_a_product, (carry, jnp.zeros((8, 8), jnp.float32)))
    used = zeros[0, 0] == 0
    return _tree.check_heads(lambda heads: jax.tree.map(lambda x: jnp.where(used, x, jnp.zeros_like(x)), heads), carry)
