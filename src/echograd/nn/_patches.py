"""Patches: several samples of a sequence as one step of a model, and the order of the steps."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ._layout import Rows, Valid


def patches(x: Float[Array, "batch samples inputs"], patch: int, taps: int) -> Rows:
    """Return, as the features of step k, the samples of patch k and of the `taps` - 1 patches before it.

    Patch k holds the samples k·patch to (k+1)·patch - 1. Samples before the start and after the end are zero. A linear
    layer on these features is a causal convolution of length patch·taps at stride patch.
    """
    batch, samples, inputs = x.shape
    steps = -(-samples // patch)
    x = jnp.pad(x, ((0, 0), (0, steps * patch - samples), (0, 0))).reshape(batch, steps, patch * inputs)
    late = [jnp.pad(x, ((0, 0), (i, 0), (0, 0)))[:, :steps] for i in range(taps)]
    return jnp.moveaxis(jnp.concatenate(late, -1), -1, 0)


def valid_patches(valid: Float[Array, "batch samples"], patch: int) -> Valid:
    """Return 1 for every patch that holds a valid sample."""
    return valid[:, ::patch]


def backward(x: Rows, valid: Valid) -> Rows:
    """Return rows in the reverse order of their valid steps; masked ones stay at the end."""
    steps = x.shape[-1]
    at = jnp.arange(steps, dtype=jnp.int32)[None]
    count = jnp.sum(valid, 1).astype(jnp.int32)[:, None]
    index = jnp.where(at < count, count - 1 - at, at)
    return jnp.take_along_axis(x, index[None], -1)
