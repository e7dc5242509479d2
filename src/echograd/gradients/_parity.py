"""Whether a function changes with the sign of its argument, told from its program alone."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Literal
from jaxtyping import PyTree

# Parities: of what does not change with the sign of the argument, of what changes its own, of what may do neither.
_SAME, _OPPOSITE, _UNKNOWN = 1, -1, 0

# The parity of the result is that of all operands, ...
_LINEAR = {
    *("add", "add_any", "sub", "neg", "reduce_sum", "cumsum", "concatenate", "complex", "real", "imag", "conj", "fft"),
    *("reshape", "broadcast_in_dim", "squeeze", "expand_dims", "transpose", "slice", "split", "unstack", "rev"),
    *("copy", "convert_element_type", "reduce_precision"),
}
# ... that of the first one, the others saying where, ...
_PICKING = {"gather", "dynamic_slice"}
# ... the product of theirs, ...
_PRODUCTS = {"mul", "div", "dot_general", "conv_general_dilated"}
# ... that of the one operand, an odd function, or even in any case.
_ODD = {"sin", "tan", "asin", "atan", "sinh", "tanh", "asinh", "atanh", "erf", "cbrt", "sign"}
_EVEN = {"abs", "square", "cos", "cosh"}
_CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr", "custom_jvp_call": "call_jaxpr"}


def is_even(f: Callable[[PyTree], Any], x: PyTree) -> bool:
    """Return whether `f(-x)` is `f(x)`, bit for bit, for every `x` and whatever values `f` closes over.

    `False` says that the program does not show it. It may be so all the same.
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
        found = _UNKNOWN  # as a truth value a number and minus it are one
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
