"""Dropout with coins from hashed indices, which an echo can toss again."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, UInt32

from .._internal import _checks

_STRIDE = np.uint32(0x9E3779B9)


def _hash(word: UInt32[Array, "*shape"]) -> UInt32[Array, "*shape"]:
    """Return pseudo-random words. Source: C. Wellons, hash-prospector."""
    for shift, factor in ((16, 0x21F0AAAD), (15, 0x735A2D97), (15, 1)):
        word = (word ^ (word >> jnp.uint32(shift))) * jnp.uint32(factor)
    return word


def dropout_seeds(key: PRNGKeyArray, blocks: int) -> UInt32[Array, "blocks 2"]:
    """Return two random words for every block of a model."""
    key = _checks.key("HSSM", key)  # one key for a whole batch: the coins differ between its examples
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.key_data(key)
    return _hash(key.reshape(1, -1)[:, -2:] + np.arange(1, blocks + 1, dtype=np.uint32)[:, None] * _STRIDE)


def make_dropout(seed: UInt32[Array, "2"], probability: float, shape: tuple[int, ...], block: Any) -> Any:
    """Return a function `(y, half) -> y` that drops entries, by the lower (0) or upper (1) half of random words.

    A word is the hash of a sum of two words, one for the row and one for the step. So the result does not depend on how
    the steps are cut into blocks. Dropout needs fair coins, not unpredictable ones, and these take less than a sixth of
    the time of `jax.random`. The probability is rounded to 16 bits. Kept entries are scaled by the rounded probability.

    Args:
        seed: two random words.
        probability: of dropping an entry.
        shape: (features, batch, steps) of one block of steps.
        block: number of the block of steps.
    """
    features, batch, steps = shape
    rows = _hash(jax.lax.iota(jnp.uint32, features * batch).reshape(features, batch, 1) * _STRIDE + seed[0])
    first = jnp.asarray(block).astype(jnp.uint32) * jnp.uint32(steps)
    times = _hash((jax.lax.iota(jnp.uint32, steps) + first) * _STRIDE + seed[1])
    # The barriers keep XLA from fusing the hashes into every use, where they would be computed again.
    rows, times = jax.lax.optimization_barrier((rows, times))
    word = jax.lax.optimization_barrier(_hash(rows + times[None, None]))
    threshold = round(probability * 2**16)
    scale = 1 / (1 - threshold / 2**16)

    def keep(y: Array, half: int) -> Array:
        coin = (word >> jnp.uint32(16 * half)) & jnp.uint32(0xFFFF)
        return y * (scale * (coin >= jnp.uint32(threshold)).astype(y.dtype))

    return keep
