"""Rows of features as they are inside a model: features first and steps last, so that all products are of matrices."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _tree

Rows = Float[Array, "features *batch steps"]
# Which rows count: 1 or 0.
Valid = Float[Array, "*batch steps"]


def checked(name: str, x: Any, dtype: Any, features: int, *axes: str) -> Array:
    """Return what a user hands in as an array, features last, or raise.

    Args:
        name: of the layer that complains.
        x: one row, a sequence, or a batch of them.
        dtype: that of the parameters of the layer.
        features: how many there must be.
        axes: what the axes in front of them are called; "batch" need not be there.
    """
    x = jnp.asarray(x)
    shapes = [axes[1:], axes] if axes[:1] == ("batch",) else [axes]
    if x.shape[-1:] != (features,) or x.ndim - 1 not in map(len, shapes):
        wanted = " or ".join(f"({', '.join((*shape, str(features)))}{'' if shape else ','})" for shape in shapes)
        raise ValueError(f"{name}: the input has shape {x.shape}, and {wanted} is needed.")
    if x.size == 0:
        raise ValueError(f"{name}: the input has shape {x.shape}: there is nothing in it.")
    if x.dtype != dtype:
        raise TypeError(f"{name}: the input is {x.dtype}, and the parameters are {dtype}. Convert one of them.")
    _tree.check_digits(name, "the input", x)
    _tree.check_usable(name, "the input", x)
    return x


def reshaped(x: Array, *shape: int) -> Array:
    """Return `x` in another shape, between barriers.

    On CPUs, XLA fuses a reshape with the loop that computes `x`, which then runs over the new shape and divides by the
    sizes of the old one for every entry: it is not vectorised any more, and takes two to four times as long.
    """
    return jax.lax.optimization_barrier(jax.lax.optimization_barrier(x).reshape(shape))


def product(a: Array, b: Array) -> Array:
    """Return a product that moves oscillators, made with all the digits there are.

    GPUs round the factors of float32 products to ten bits, unless told otherwise, and not alike in every program. But
    an oscillator forgets nothing, and its echo has to find the way it came.
    """
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def mixed(linear: eqx.nn.Linear, x: Rows, multiply: Callable[[Array, Array], Array] = jnp.matmul) -> Rows:
    """Apply a linear layer to the features."""
    y = reshaped(multiply(linear.weight, reshaped(x, x.shape[0], -1)), -1, *x.shape[1:])
    return y if linear.bias is None else y + rowlike(linear.bias, y)


def encoded(encoder: eqx.nn.Linear, x: Rows) -> Rows:
    """Return the rows for the first oscillators, the same whenever they are made again."""
    return mixed(encoder, x, product)


def rowlike(x: Float[Array, " features"], rows: Float[Array, "features *others"]) -> Array:
    """Return one number per feature in a shape that meets that of rows."""
    return jnp.expand_dims(x, tuple(range(1, rows.ndim)))


@jax.custom_vjp
def halves(x: Rows) -> tuple[Rows, Rows]:
    """Return the first half of the features, and the second.

    The cotangents are computed before they are put together: a loop over both would ask which half it is in.
    """
    half = x.shape[0] // 2
    return x[:half], x[half:]


halves.defvjp(lambda x: (halves(x), None), lambda _, bars: (jnp.concatenate(jax.lax.optimization_barrier(bars)),))
