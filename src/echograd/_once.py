"""Keeping the compiler from computing the same thing again and again inside the loops over time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Literal
from jaxtyping import Array

# What costs many times an addition. Powers with integer exponents are a few multiplications, and are left alone.
_COSTLY = {
    *("sin", "cos", "tan", "asin", "acos", "atan", "atan2", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh"),
    *("exp", "exp2", "expm1", "log", "log1p", "logistic", "pow", "cbrt", "erf", "erfc", "erf_inv", "lgamma", "digamma"),
}

# Differences of neighbours are sums of these.
_SHIFTED = {"slice", "concatenate"}

# Arrays up to here stay in the innermost cache, where to write and read them again costs less than to compute them
# again; of longer ones, every pass over memory counts.
_SMALL = 1 << 15


def once(f: Callable[..., Any]) -> Callable[..., Any]:
    """Return `f` arranged so that on a CPU what is shared in it is computed once. The numbers are the same.

    There, XLA fuses elementwise operations into each of their uses, computing them anew in each: a force and the
    readings of three parameters that share a sine cost four sines. A barrier keeps the first; likewise, in short
    arrays, the differences of neighbours. Padding, which is what the derivative of a difference is made of, becomes
    a copy there instead of a condition in the innermost loop.
    """
    if jax.default_backend() != "cpu":
        return f

    def arranged(*arguments: Any) -> Any:
        closed, shape = jax.make_jaxpr(f, return_shape=True)(*arguments)
        values = _evaluate(closed.jaxpr, closed.consts, jax.tree.leaves(arguments))
        return jax.tree.unflatten(jax.tree.structure(shape), values)

    return arranged


def _evaluate(jaxpr: Any, consts: Any, arguments: list[Any]) -> list[Any]:
    known = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *arguments), strict=True))
    shifted = set()

    def value(v: Any) -> Any:
        return v.val if isinstance(v, Literal) else known[v]

    for equation in jaxpr.eqns:
        name, operands = equation.primitive.name, [value(v) for v in equation.invars]
        inner = equation.params.get("jaxpr") if name in ("jit", "pjit", "closed_call") else None
        if inner is not None:
            results = _evaluate(inner.jaxpr, inner.consts, operands)
        elif name == "pad" and _is_small(equation) and _widens(equation.params["padding_config"]):
            x, filler = operands
            results = [_padded(x, filler, equation.params["padding_config"])]
        else:
            results = _bind(equation, operands)
        if name in _SHIFTED:
            shifted.update(equation.outvars)
        difference = name in ("add", "sub") and not shifted.isdisjoint(
            v for v in equation.invars if not isinstance(v, Literal)
        )
        if (
            equation.outvars
            and equation.outvars[0].aval.ndim
            and (name in _COSTLY or (difference and _is_small(equation)))
        ):
            results = [jax.lax.optimization_barrier(results[0])]
        known.update(zip(equation.outvars, results, strict=True))
    return [value(v) for v in jaxpr.outvars]


def _widens(widths: Any) -> bool:
    return all(before >= 0 <= after and not between for before, after, between in widths)


def _is_small(equation: Any) -> bool:
    aval = equation.outvars[0].aval
    return aval.size * aval.dtype.itemsize <= _SMALL


def _padded(x: Array, filler: Array, widths: Any) -> Array:
    """Return `jax.lax.pad(x, filler, widths)` by copying."""
    for axis, (before, after, _) in enumerate(widths):
        parts = [jax.lax.optimization_barrier(x)]
        for width, place in ((before, 0), (after, 2)):
            if width:
                # Behind a barrier, or the compiler turns all this into padding again.
                block = jnp.full((*x.shape[:axis], width, *x.shape[axis + 1 :]), filler)
                parts.insert(place, jax.lax.optimization_barrier(block))
        if len(parts) > 1:
            x = jax.lax.optimization_barrier(jax.lax.concatenate(parts, axis))
    return x


def _bind(equation: Any, operands: list[Any]) -> list[Any]:
    bound = equation.primitive.get_bind_params(equation.params)
    functions, parameters = bound if isinstance(bound, tuple) else ((), bound)  # a tuple before jax 0.11
    results = equation.primitive.bind(*functions, *operands, **parameters)
    return results if equation.primitive.multiple_results else [results]
