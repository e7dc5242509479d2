"""Whether a function is even in its argument, shown by its program alone."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Literal
from jaxtyping import PyTree

# How a value changes with the sign of the argument: not at all (even), by its own sign (odd), or in an unknown way.
_SAME, _OPPOSITE, _UNKNOWN = 1, -1, 0

# The result has the parity that all operands share, ...
_LINEAR = {
    *("add", "add_any", "sub", "neg", "reduce_sum", "cumsum", "concatenate", "complex", "real", "imag", "conj", "fft"),
    *("reshape", "broadcast_in_dim", "squeeze", "expand_dims", "transpose", "slice", "split", "unstack", "rev"),
    *("copy", "convert_element_type", "reduce_precision"),
}
# ... that of the first operand, where the others are indices, ...
_PICKING = {"gather", "dynamic_slice"}
# ... the product of the parities of the operands, ...
_PRODUCTS = {"mul", "div", "dot_general", "conv_general_dilated"}
# ... that of the operand (odd functions), or is even (even functions of even or odd operands).
_ODD = {"sin", "tan", "asin", "atan", "sinh", "tanh", "asinh", "atanh", "erf", "cbrt", "sign"}
_EVEN = {"abs", "square", "cos", "cosh"}
_CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr", "custom_jvp_call": "call_jaxpr"}


def is_even(f: Callable[[PyTree], Any], x: PyTree) -> bool:
    """Return whether the program of `f` shows that `f(-x)` is `f(x)`, bit for bit, for all `x` and closed-over values.

    `False` means that the program does not show it; `f` may still be even.
    """
    jaxpr = jax.make_jaxpr(f)(x).jaxpr
    return set(_parities(jaxpr, [_OPPOSITE] * len(jaxpr.invars))) == {_SAME}


def _parities(jaxpr: Any, arguments: list[int]) -> list[int]:
    """Return the parities of the results of a program."""
    known = dict(zip(jaxpr.invars, arguments, strict=True)) | dict.fromkeys(jaxpr.constvars, _SAME)

    def parity(v: Any) -> int:
        return _SAME if isinstance(v, Literal) else known[v]

    for equation in jaxpr.eqns:
        found = _of_results(equation, list(map(parity, equation.invars)))
        known.update(zip(equation.outvars, found, strict=True))
    return list(map(parity, jaxpr.outvars))


def _of_results(equation: Any, operands: list[int]) -> list[int]:
    """Return the parities of the results of an operation."""
    name, found = equation.primitive.name, _UNKNOWN
    inner = equation.params.get(_CALLS.get(name, ""))
    if set(operands) <= {_SAME}:
        found = _SAME
    elif inner is not None and hasattr(inner, "jaxpr"):
        return _parities(inner.jaxpr, operands)
    elif not all(jnp.issubdtype(v.aval.dtype, jnp.inexact) for v in equation.outvars):
        found = _UNKNOWN  # as booleans, x and -x are the same
    elif (name in _LINEAR and len(set(operands)) == 1) or (name in _PICKING and set(operands[1:]) == {_SAME}):
        found = operands[0]
    elif name in _PRODUCTS:
        found = operands[0] * operands[1]
    elif name in _ODD:
        found = operands[0]
    elif name in _EVEN:
        found = abs(operands[0])
    elif name == "integer_pow":
        found = operands[0] if equation.params["y"] % 2 else abs(operands[0])
    return [found] * len(equation.outvars)
