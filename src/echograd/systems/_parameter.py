"""Parameters of ready-made systems: numbers that are converted to trainable arrays."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._internal._errors import ArgumentError
from ._base import AbstractSystem


def parameter(default: Any, sign: str = "any") -> Any:
    """Return a field for a trainable parameter: a number or an array, converted to a real array.

    `AbstractSystem` checks the sign when a system is created: `sign` is "any", "positive" or "not negative".
    """
    return eqx.field(default=default, converter=converted, metadata={"sign": sign})


def converted(x: Any) -> Any:
    """Return `x` as an array, or unchanged if it cannot be one: the check that knows its name then raises."""
    if isinstance(x, jax.Array):
        return as_parameter(x) if jnp.issubdtype(x.dtype, jnp.number) else x
    try:
        array = np.asarray(x)
    except ValueError:
        return x
    return as_parameter(x) if array.dtype.kind in "iufc" else x


def as_parameter(x: Any) -> Array:
    """Return `x` as an array. Integers and Python and NumPy numbers get JAX's default dtype, real or complex."""
    if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jnp.inexact):
        return x
    with np.errstate(over="ignore"):
        return jnp.asarray(x, jnp.result_type(complex if np.iscomplexobj(x) else float))


def check_shapes(system: AbstractSystem, shape: tuple[int, ...], *names: str, number: bool = True) -> None:
    """Raise unless parameters have this shape or, with `number`, are one number. Others would be broadcast.

    Call it where parameters meet the state, not when they are set: a batch of systems has a leading axis for `vmap`.
    """
    for name in names:
        found = jnp.shape(getattr(system, name))
        if found != shape and not (number and found == ()):
            raise ArgumentError(
                f"{type(system).__name__}: {name} has shape {found}. For this state give "
                f"{'one number' if number or not shape else ''}{' or ' if number and shape else ''}"
                f"{f'shape {shape}' if shape else ''}; for a batch of systems use vmap."
            )


def work(system: AbstractSystem, q: Array, u: Any) -> Float[Array, ""]:
    r"""Return $u \cdot q$, the work of a force `u` on every coordinate; zero for `None`."""
    if u is None:
        return jnp.zeros((), q.dtype)
    found = jax.tree.map(jnp.shape, u)
    if found != q.shape:
        raise ArgumentError(
            f"{type(system).__name__}: the input of one step has shape {found}, but it is a force of shape "
            f"{q.shape}. Pass inputs of that shape, after their leading axis of steps."
        )
    return jnp.sum(u * q)


def check_no_input(system: AbstractSystem, u: Any) -> None:
    """Raise if a system without inputs gets one."""
    if jax.tree.leaves(u):
        raise ArgumentError(
            f"{type(system).__name__}: it takes no inputs. Pass `steps` instead of inputs, or write a system whose "
            "energy has a term in `u`."
        )
