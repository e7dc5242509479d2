"""Pooling: one vector of features for a whole sequence."""

import math
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._layout import Rows, Valid
from ._norm import Moments

Pooling = Literal["mean", "mean_max_deviation", "last"]
KINDS = ("mean", "mean_max_deviation", "last")

# Added to the variance of a feature, so that the deviation has a slope at zero.
_EPSILON = 1e-5


def width(pooling: Pooling) -> int:
    """Return the number of pooled features per feature."""
    return 3 if pooling == "mean_max_deviation" else 1


def pool(pooling: Pooling, x: Rows, valid: Valid) -> Float[Array, "batch pooled"]:
    """Return the pooled features of rows of shape (features, batch, steps).

    A sequence without valid steps (the padding of a batch) pools to zero instead of NaN.
    """
    if pooling == "mean":
        return mean(jnp.sum(valid[None] * x, -1), valid)
    if pooling == "last":
        last = valid - jnp.pad(valid[:, 1:], ((0, 0), (0, 1)))
        return jnp.sum(last[None] * x, -1).T
    moments = jax.vmap(Moments.of, (1, 0))(x, valid)
    largest = jnp.max(jnp.where(valid[None] > 0, x, -jnp.inf), -1).T
    return _summary(moments, largest)


def mean(sums: Float[Array, "features batch"], valid: Valid) -> Float[Array, "batch features"]:
    """Return means from the sums over the valid steps."""
    return sums.T / jnp.maximum(jnp.sum(valid, 1), 1)[:, None]


def _summary(moments: Moments, largest: Float[Array, "*batch features"]) -> Float[Array, "*batch pooled"]:
    """Return mean, maximum and standard deviation of every feature, concatenated."""
    count = moments.count[..., None]
    largest = jnp.where(count > 0, largest, 0)
    deviation = jnp.sqrt(moments.squares / jnp.maximum(count, 1) + _EPSILON) - math.sqrt(_EPSILON)
    return jnp.concatenate([moments.mean, largest, deviation], -1)


class Pool(eqx.Module):
    """What the pooled features of a stream need of its steps so far."""

    moments: Moments
    largest: Float[Array, " features"]
    last: Float[Array, " features"]

    @staticmethod
    def empty(features: int, dtype: Any) -> "Pool":
        """Return the pool before the first step."""
        zero = jnp.zeros(features, dtype)
        return Pool(Moments(jnp.zeros((), dtype), zero, zero), jnp.full(features, -jnp.inf, dtype), zero)

    def add(self, x: Float[Array, " features"]) -> "Pool":
        """Return the pool with one more step."""
        one = Moments(jnp.ones((), x.dtype), x, jnp.zeros_like(x))
        return Pool(self.moments + one, jnp.maximum(self.largest, x), x)

    def read(self, pooling: Pooling) -> Float[Array, " pooled"]:
        """Return the pooled features."""
        if pooling == "mean_max_deviation":
            return _summary(self.moments, self.largest)
        return self.last if pooling == "last" else self.moments.mean
