"""Walks over jaxprs: interpret one by a rule, list the jaxprs inside, compare two by a digest."""

import hashlib
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend.core import Literal


def live(jaxpr: Any) -> tuple[list[Any], set[Any]]:
    """Return the equations that the results depend on or that have effects, and the variables that they use."""
    used, equations = set(variables(jaxpr.outvars)), []
    for equation in reversed(jaxpr.eqns):
        if equation.effects or not used.isdisjoint(equation.outvars):
            used.update(variables(equation.invars))
            equations.append(equation)
    return equations[::-1], used


def variables(operands: Any) -> list[Any]:
    """Return the operands that are not literals."""
    return [v for v in operands if not isinstance(v, Literal)]


def interpret(closed: Any, arguments: Sequence[Any], rule: Callable[[Any, Callable[[Any], Any]], Any]) -> list[Any]:
    """Return the results of a closed jaxpr whose live equations `rule` interprets, in their order.

    Args:
        closed: the closed jaxpr.
        arguments: one value for each argument. They may be arrays, or anything that the rule works with.
        rule: `(equation, value) -> results`, where `value(v)` is the value of a variable, and a literal itself.
    """
    jaxpr = closed.jaxpr
    known = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*closed.consts, *arguments), strict=True))

    def value(v: Any) -> Any:
        return v if isinstance(v, Literal) else known[v]

    for equation in live(jaxpr)[0]:
        known.update(zip(equation.outvars, rule(equation, value), strict=True))
    return list(map(value, jaxpr.outvars))


def bind(equation: Any, operands: Sequence[Any]) -> list[Any]:
    """Return the results of one operation with these arrays or literals for operands."""
    primitive = equation.primitive
    bound = primitive.get_bind_params(equation.params)
    functions, params = bound if isinstance(bound, tuple) else ((), bound)  # a tuple before jax 0.11
    with equation.ctx.manager:
        results = primitive.bind(*functions, *map(unwrapped, operands), **params)
    return list(results) if primitive.multiple_results else [results]


def unwrapped(x: Any) -> Any:
    """Return the number in a literal, and everything else unchanged."""
    return x.val if isinstance(x, Literal) else x


def with_inner(jaxpr: Any) -> Iterator[Any]:
    """Yield a jaxpr and those of its loops, branches and calls, at any depth."""
    yield jaxpr
    for equation in jaxpr.eqns:
        for x in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_jaxpr):
            if _is_jaxpr(x):
                yield from with_inner(getattr(x, "jaxpr", x))


def _is_jaxpr(x: Any) -> bool:
    return hasattr(x, "eqns") or hasattr(x, "jaxpr")


def digest(program: Any, constants: bool = True) -> str:
    """Return a text that is the same for two closed jaxprs if and only if they compute the same.

    Traced arrays that they close over are the same if they are identical, other arrays if their numbers are equal.
    Without `constants` these arrays count as arguments.
    """
    parts = itertools.chain(_equations(program.jaxpr), _description(program.consts) if constants else ())
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()


def _equations(jaxpr: Any) -> Iterator[str]:
    names = {v: i for i, v in enumerate((*jaxpr.constvars, *jaxpr.invars))}
    yield " ".join(str(v.aval) for v in names)
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for v in equation.invars:
            yield from _operand(v, names)
        for name, value in equation.params.items():
            yield name
            # The functions of callbacks must be identical. Other functions are derivative rules, traced where used.
            yield from (repr(value),) if "callback" in equation.primitive.name else _description(value)
        names.update((v, len(names) + i) for i, v in enumerate(equation.outvars))
    for v in jaxpr.outvars:
        yield from _operand(v, names)


def _operand(v: Any, names: dict[Any, int]) -> Iterator[str]:
    if not isinstance(v, Literal):
        yield str(names[v])
        return
    yield str(v.aval)
    yield from _description(v.val)


def _description(x: Any) -> Iterator[str]:
    if hasattr(x, "eqns"):
        yield from _equations(getattr(x, "jaxpr", x))
        yield from _description(getattr(x, "consts", ()))
    elif isinstance(x, dict):
        yield from _description(list(x.items()))
    elif isinstance(x, list | tuple):
        yield f"{type(x).__name__} {len(x)}"
        for part in x:
            yield from _description(part)
    elif isinstance(x, Tracer):
        yield f"traced {id(x)}"
    elif isinstance(x, jax.Array | np.ndarray | np.generic):
        yield _contents(x)
    else:
        yield re.sub(r" at 0x[0-9a-f]+", "", repr(x))


def _contents(x: Any) -> str:
    """Return dtype, shape and a digest of the numbers of an array."""
    try:
        numbers = np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x)
    except (RuntimeError, TypeError, ValueError):  # parts of it are on other machines
        return f"array {id(x)}"
    return f"{x.dtype} {x.shape} {hashlib.blake2b(numbers.tobytes(), digest_size=16).hexdigest()}"
