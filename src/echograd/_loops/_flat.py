"""Jaxprs as flat lists of operations, without duplicates."""

from typing import Any

import jax
import numpy as np
from jax.extend.core import Literal

from .._internal._jaxpr import bind, interpret, unwrapped

# Calls, and the parameter that holds the jaxpr they stand for. Those with derivative rules of their own (`custom_jvp`,
# `custom_vjp`) are kept.
_CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr"}
_PLACEMENT = ("in_shardings", "out_shardings", "in_layouts", "out_layouts", "compiler_options_kvs")


def flat(closed: Any) -> Any:
    """Return a closed jaxpr with calls of functions inlined and equal operations merged.

    Loops, branches, functions with derivative rules of their own, and operations with effects stay as they are. No
    number changes.
    """
    done: dict[Any, Any] = {}

    def results(equation: Any, value: Any) -> list[Any]:
        operands = list(map(value, equation.invars))
        inner = _called(equation)
        if inner is not None:
            return interpret(inner, operands, results)
        key = _key(equation, operands)
        if key is None:
            return bind(equation, operands)
        if key not in done:
            # The operands are kept alive, so that no other array gets their identity.
            done[key] = operands, bind(equation, operands)
        return done[key][1]

    return jax.make_jaxpr(lambda *x: list(map(unwrapped, interpret(closed, x, results))))(*closed.in_avals)


def _called(equation: Any) -> Any:
    """Return the closed jaxpr that an equation stands for, or `None`."""
    inner = equation.params.get(_CALLS.get(equation.primitive.name, ""))
    if not hasattr(inner, "consts"):
        return None
    placed = [x for name in _PLACEMENT for x in equation.params.get(name) or ()]
    if any(x is not None and type(x).__name__ != "UnspecifiedValue" for x in placed):
        return None
    return inner


def _key(equation: Any, operands: list[Any]) -> Any:
    """Return a key that equations have in common if they compute the same; `None` if this cannot be decided."""
    if equation.effects:
        return None
    try:
        key = (equation.primitive, tuple(sorted(equation.params.items())), *map(_identity, operands))
        hash(key)
    except (TypeError, ValueError):
        return None
    return key


def _identity(operand: Any) -> Any:
    if not isinstance(operand, Literal):
        return id(operand)
    return str(operand.aval), type(operand.val), np.asarray(operand.val).tobytes()
