"""Programs as flat lists of operations, each of them once."""

from typing import Any, NamedTuple

import numpy as np
from jax.extend.core import Literal

# Calls that stand for the operations of the program in this parameter of theirs. Those with derivative rules of their
# own (`custom_jvp`, `custom_vjp`) are kept.
_CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr"}
_PLACEMENT = ("in_shardings", "out_shardings", "in_layouts", "out_layouts", "compiler_options_kvs")


class Value:
    """A value in a program, known by its identity."""

    def __init__(self, aval: Any) -> None:
        self.aval = aval


class Operation(NamedTuple):
    """One equation of a program; operands are values or literals."""

    equation: Any
    operands: tuple[Any, ...]
    results: tuple[Value, ...]

    @property
    def name(self) -> str:
        return self.equation.primitive.name

    @property
    def params(self) -> dict[str, Any]:
        return self.equation.params

    def run(self, operands: list[Any]) -> list[Any]:
        """Return its results, as the program has them."""
        primitive = self.equation.primitive
        bound = primitive.get_bind_params(self.params)
        functions, params = bound if isinstance(bound, tuple) else ((), bound)  # a tuple before jax 0.11
        with self.equation.ctx.manager:
            results = primitive.bind(*functions, *operands, **params)
        return list(results) if primitive.multiple_results else [results]


class Flat(NamedTuple):
    """A program: what goes in, what is done, what comes out."""

    constants: dict[Value, Any]
    arguments: list[Value]
    operations: list[Operation]
    results: list[Any]


def flat(closed: Any) -> Flat:
    """Return the program of a closed jaxpr with calls of functions written out and equal operations merged.

    The bodies of loops and branches, functions with derivative rules of their own, and operations with effects stay as
    they are. Nothing is computed here, and no number changes.
    """
    constants: dict[Value, Any] = {}
    operations: list[Operation] = []
    done: dict[Any, tuple[Value, ...]] = {}

    def write(closed: Any, arguments: Any) -> list[Any]:
        """Append the operations of a program and return its results."""
        jaxpr = closed.jaxpr
        known: dict[Any, Any] = dict(zip(jaxpr.invars, arguments, strict=True))
        for v, constant in zip(jaxpr.constvars, closed.consts, strict=True):
            known[v] = Value(v.aval)
            constants[known[v]] = constant

        def value(v: Any) -> Any:
            return v if isinstance(v, Literal) else known[v]

        for equation in jaxpr.eqns:
            operands = tuple(map(value, equation.invars))
            inner = _called(equation)
            key = None if inner is not None else _key(equation, operands)
            if inner is not None:
                results = write(inner, operands)
            elif key in done:
                results = done[key]
            else:
                results = tuple(Value(v.aval) for v in equation.outvars)
                operations.append(Operation(equation, operands, results))
            if key is not None:
                done[key] = tuple(results)
            known.update(zip(equation.outvars, results, strict=True))
        return list(map(value, jaxpr.outvars))

    entries = [Value(v.aval) for v in closed.jaxpr.invars]
    results = write(closed, entries)
    return Flat(constants, entries, operations, results)


def _called(equation: Any) -> Any:
    """Return the closed jaxpr that an equation stands for, or `None`."""
    inner = equation.params.get(_CALLS.get(equation.primitive.name, ""))
    if not hasattr(inner, "consts"):
        return None
    placed = [x for name in _PLACEMENT for x in equation.params.get(name) or ()]
    if any(x is not None and type(x).__name__ != "UnspecifiedValue" for x in placed):
        return None
    return inner


def _key(equation: Any, operands: tuple[Any, ...]) -> Any:
    """Return what two equations that compute the same have in common; `None` if they cannot be told."""
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
        return operand
    return str(operand.aval), type(operand.val), np.asarray(operand.val).tobytes()
