"""Parameters of ready-made systems: numbers that become trainable arrays."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def parameter(default: Any) -> Any:
    """Return a field for a trainable parameter: a number or an array, made an inexact array."""
    return eqx.field(default=default, converter=as_parameter)


def as_parameter(x: Any) -> Array:
    """Return `x` as an array; Python and numpy numbers and integers take JAX's default dtype, real or complex."""
    if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jnp.inexact):
        return x
    return jnp.asarray(x, jnp.result_type(complex if np.iscomplexobj(x) else float))


def work(q: Array, u: Any) -> Float[Array, ""]:
    r"""Return $u \cdot q$, what a force `u` on every coordinate takes from the potential; zero for `None`."""
    return jnp.zeros((), q.dtype) if u is None else jnp.sum(u * q)
