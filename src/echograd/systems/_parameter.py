"""Parameters of ready-made systems: numbers that become trainable arrays."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._internal._errors import ArgumentError
from ._base import AbstractSystem


def parameter(default: Any, sign: str = "any") -> Any:
    """Return a field for a trainable parameter: a number or an array, made a real array.

    `AbstractSystem` checks it when the system is made: `sign` is "any", "positive" or "not negative".
    """
    return eqx.field(default=default, converter=converted, metadata={"sign": sign})


def converted(x: Any) -> Any:
    """Return `x` as an array where it can be one; what cannot is refused where its name is known."""
    if isinstance(x, jax.Array):
        return as_parameter(x) if jnp.issubdtype(x.dtype, jnp.number) else x
    try:
        array = np.asarray(x)
    except ValueError:
        return x
    return as_parameter(x) if array.dtype.kind in "iufc" else x


def as_parameter(x: Any) -> Array:
    """Return `x` as an array; Python and numpy numbers and integers take JAX's default dtype, real or complex."""
    if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jnp.inexact):
        return x
    with np.errstate(over="ignore"):
        return jnp.asarray(x, jnp.result_type(complex if np.iscomplexobj(x) else float))


def check_shapes(system: AbstractSystem, shape: tuple[int, ...], *names: str, number: bool = True) -> None:
    """Raise unless parameters have this shape or, where one will do, are one number: others would be broadcast.

    It is asked where they meet the state, and not when they are set: of a batch, `vmap` takes away the leading axis.
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
    r"""Return $u \cdot q$, what a force `u` on every coordinate takes from the potential; zero for `None`."""
    if u is None:
        return jnp.zeros((), q.dtype)
    found = jax.tree.map(jnp.shape, u)
    if found != q.shape:
        raise ArgumentError(
            f"{type(system).__name__}: the input held during a step has shape {found}, and the force that it is has "
            f"shape {q.shape}. Pass inputs of that shape, after their leading axis of steps."
        )
    return jnp.sum(u * q)


def undriven(system: AbstractSystem, u: Any) -> None:
    """Raise if an input is given to a system that none acts on."""
    if jax.tree.leaves(u):
        raise ArgumentError(
            f"{type(system).__name__}: it takes no inputs; they would change nothing. Leave them out and give `steps`, "
            "or derive a class from it whose energy has a term of `u`."
        )
