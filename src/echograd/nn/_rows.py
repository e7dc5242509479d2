"""Rows of features as they are inside a model: features first and steps last, so that all products are of matrices."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._internal import _checks, _tree
from .._internal._errors import ArgumentError, ArgumentTypeError

Rows = Float[Array, "features *batch steps"]
# Which rows count: 1 or 0.
Valid = Float[Array, "*batch steps"]


def checked(name: str, x: Any, dtype: Any, features: int, *axes: str, nan: bool = False) -> Array:
    """Return what a user hands in as an array, features last, or raise.

    Args:
        name: of the layer that complains.
        x: one row, a sequence, or a batch of them.
        dtype: that of the parameters of the layer.
        features: how many there must be.
        axes: what the axes in front of them are called; "batch" need not be there.
        nan: whether some rows may hold anything: those that a mask leaves out.
    """
    x = _checks.numbers(name, "the input", x)
    if not isinstance(x, jax.Array):
        raise ArgumentTypeError(f"{name}: the input is {_checks.shown(x)}, and not one array of numbers.")
    shapes = [axes[1:], axes] if axes[:1] == ("batch",) else [axes]
    if x.shape[-1:] != (features,) or x.ndim - 1 not in map(len, shapes):
        wanted = " or ".join(f"({', '.join((*shape, str(features)))}{'' if shape else ','})" for shape in shapes)
        raise ArgumentError(f"{name}: the input has shape {x.shape}, and {wanted} is needed.")
    if x.size == 0:
        raise ArgumentError(f"{name}: the input has shape {x.shape}: there is nothing in it.")
    if x.dtype != dtype:
        raise ArgumentTypeError(f"{name}: the input is {x.dtype}, and the parameters are {dtype}. Convert one of them.")
    _tree.check_digits(name, "the input", x)
    _tree.check_usable(name, "the input", x)
    return x if nan else _checks.finite(name, "the input", x)


def checked_mask(name: str, mask: Any, x: Float[Array, "*batch steps inputs"]) -> Bool[Array, "*batch steps"]:
    """Return the mask, or raise where it is none for these sequences."""
    mask = _checks.numbers(name, "mask", mask)
    if jnp.shape(mask) != x.shape[:-1]:
        raise ArgumentError(f"{name}: the mask has shape {jnp.shape(mask)}, and (*batch, steps) is {x.shape[:-1]}.")
    if mask.dtype != jnp.bool_:
        raise ArgumentTypeError(
            f"{name}: the mask is {mask.dtype}, and booleans are needed: mask > 0, or "
            "jnp.arange(steps)[None] < lengths[:, None]."
        )
    return eqx.error_if(
        mask,
        jnp.any(mask[..., 1:] & ~mask[..., :-1]),
        f"{name}: a step that the mask leaves out comes before one that counts. Oscillators run through every step, so "
        "padding belongs after the sequence, and gaps have to be filled.",
    )


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
