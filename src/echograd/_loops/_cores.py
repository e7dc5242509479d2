"""Loops over large arrays, shared out between the cores of a CPU."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

# XLA gives an operation more cores than one if its result is at least this long.
_LARGE = 1 << 20


def on_all_cores(first: Any, end: Any, body: Callable[[Int[Array, ""], Any], Any], carry: Any) -> Any:
    """Return `jax.lax.fori_loop(first, end, body, carry)`, whose operations on large arrays run on all cores of a CPU.

    XLA turns a loop that it deems simple into a single function, and that runs on one core, however large the arrays
    are. A loop with a product of matrices in it is none of these: its operations are run one by one, those on large
    arrays on several cores. So such a loop gets a small product, which nothing depends on but the loop's being there.
    """
    if max((x.size * x.dtype.itemsize for x in jax.tree.leaves(carry)), default=0) < _LARGE:
        return jax.lax.fori_loop(first, end, body, carry)

    def beside_a_product(k: Any, carry: Any) -> Any:
        return body(k, carry[0]), jnp.dot(carry[1], carry[1])

    # Zeros, which the compiler does not know to stay zeros.
    carry, zeros = jax.lax.fori_loop(first, end, beside_a_product, (carry, jnp.zeros((8, 8), jnp.float32)))
    used = zeros[0, 0] == 0
    return jax.tree.map(lambda x: jnp.where(used, x, jnp.zeros_like(x)), carry)
