"""The memory layout of sequences inside a model, and products in it: features first, steps last."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# One column of features per step, so that linear layers are products of two matrices.
Rows = Float[Array, "features *batch steps"]
# 1 for valid steps, 0 for masked ones.
Valid = Float[Array, "*batch steps"]


def reshaped(x: Array, *shape: int) -> Array:
    """Return `x` in another shape, between barriers.

    On CPUs, XLA fuses a reshape with the loop that computes `x`. That loop then divides by the old sizes for every
    entry, is not vectorised, and takes two to four times as long.
    """
    return jax.lax.optimization_barrier(jax.lax.optimization_barrier(x).reshape(shape))


def product(a: Array, b: Array) -> Array:
    """Return a matrix product that drives oscillators, in full precision.

    By default GPUs round the factors of float32 products to ten bits, differently in different programs. Undamped
    oscillators accumulate this error, and the echo would leave the path.
    """
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def apply_linear(linear: eqx.nn.Linear, x: Rows, multiply: Callable[[Array, Array], Array] = jnp.matmul) -> Rows:
    """Apply a linear layer to the features."""
    y = reshaped(multiply(linear.weight, reshaped(x, x.shape[0], -1)), -1, *x.shape[1:])
    return y if linear.bias is None else y + per_feature(linear.bias, y)


def encode(encoder: eqx.nn.Linear, x: Rows) -> Rows:
    """Return the input of the first block, in full precision, so that computing it again gives the same numbers."""
    return apply_linear(encoder, x, product)


def per_feature(x: Float[Array, " features"], rows: Float[Array, "features *others"]) -> Array:
    """Return one number per feature in a shape that broadcasts with `rows`."""
    return jnp.expand_dims(x, tuple(range(1, rows.ndim)))


@jax.custom_vjp
def halves(x: Rows) -> tuple[Rows, Rows]:
    """Return the first half of the features, and the second.

    Their cotangents are computed separately and then concatenated. One fused loop over both would branch per entry.
    """
    half = x.shape[0] // 2
    return x[:half], x[half:]


halves.defvjp(lambda x: (halves(x), None), lambda _, bars: (jnp.concatenate(jax.lax.optimization_barrier(bars)),))
