"""Functions with a reverse rule of their own that reads only the leaves that are differentiated."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree


def reverse_rule(
    primal: Callable[..., Any], forward: Callable[..., tuple[Any, Any]], backward: Callable[..., PyTree]
) -> Callable[..., Any]:
    """Return `primal` with a custom reverse rule; only its first argument is differentiated.

    Args:
        primal: `(arguments, *others) -> result`.
        forward: `(arguments, *others) -> (result, residuals)`, called in place of `primal` under differentiation.
        backward: `(residuals, bar, wanted, rest, *others) -> cotangents`. `bar` is the cotangent of the result, with
            `None` where it is zero; `wanted` are the leaves of the arguments that are differentiated, `rest` the
            others (`equinox.combine` joins them). The cotangents have the structure of the arguments' floating-point
            leaves, with `None` for zero.
    """
    rule = eqx.filter_custom_vjp(primal)

    def fwd(perturbed: PyTree, arguments: PyTree, *others: Any) -> tuple[Any, Any]:
        result, residuals = forward(arguments, *others)
        return result, (residuals, _as_shapes(perturbed))

    def bwd(residuals: Any, bar: Any, perturbed: PyTree, arguments: PyTree, *others: Any) -> PyTree:
        del perturbed  # may be a tracer
        residuals, flags = residuals
        wanted, rest = eqx.partition(arguments, _from_shapes(flags))
        return backward(residuals, bar, wanted, rest, *others)

    rule.def_fwd(fwd)
    rule.def_bwd(bwd)
    return rule


def _as_shapes(flags: PyTree) -> PyTree:
    """Return booleans as the shapes of empty arrays, which residuals keep static under any tracing.

    Static residuals would be wrong. JAX traces a program once, even if it is called twice with other leaves
    differentiated, and gives both backward rules the static structure of the residuals that were traced last.
    """
    return jax.tree.map(lambda flag: jnp.zeros((int(flag), 0), bool), flags)


def _from_shapes(arrays: PyTree) -> PyTree:
    """Return the booleans that `_as_shapes` stored."""
    return jax.tree.map(lambda x: x.shape[0] == 1, arrays)
