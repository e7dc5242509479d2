"""User functions as traced programs, compared by what they compute, with the arrays they close over as leaves.

`jax.jit` identifies a function by its object. It recompiles for each new lambda with the same code, and does not
recompile when a global number that the function reads has changed. A program is traced each time it is made. Two
programs are equal if they compute the same.
"""

import contextlib
import functools
import types
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer, eval_jaxpr
from jaxtyping import PyTree

from ._errors import ArgumentTypeError
from ._jaxpr import digest


class _Traced:
    """The jaxprs of a function, one for each type of arguments that it was traced for."""

    def __init__(self) -> None:
        self.variants: dict[Any, tuple[Any, list[int], Any]] = {}
        self.digest = ""
        self.function: Any = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Traced) and self.digest == other.digest and self.signatures() == other.signatures()

    def __hash__(self) -> int:
        return hash(self.digest)

    def signatures(self) -> Any:
        return [(signature, tree) for signature, (_, _, tree) in self.variants.items()]


class Program(eqx.Module):
    """A traced function. Its leaves are the arrays in its fields and those that it closes over."""

    held: list[Any]
    closed_over: list[Any]
    traced: _Traced = eqx.field(static=True)

    @property
    def result(self) -> PyTree:
        """Shapes and dtypes of its results."""
        jaxpr, _, tree = next(iter(self.traced.variants.values()))
        return jax.tree.unflatten(tree, [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in jaxpr.outvars])

    def __call__(self, *arguments: Any) -> Any:
        found = self.traced.variants.get(_signature(arguments))
        if found is None:
            if self.traced.function is None:
                raise ArgumentTypeError(
                    "A function that closes over a traced array was called with arguments of types that it was not "
                    f"traced for: {_signature(arguments)[1]}. Pass the array as a field of an equinox.Module."
                )
            return self.traced.function(self.held)(*arguments)
        jaxpr, places, tree = found
        closed_over = [self.closed_over[i] for i in places]
        found = eval_jaxpr(jaxpr, closed_over, *self.held, *jax.tree.leaves(arguments))
        return jax.tree.unflatten(tree, found)


def as_program(function: Callable[..., Any], *arguments: Any, nudged: Any = None) -> Program:
    """Return a function as a program, traced for these arguments and, if a nudge is complex, for `nudged` ones too."""
    held, static = eqx.partition(function, eqx.is_array)
    held, structure = jax.tree.flatten(held)
    closed_over: list[Any] = []
    traced, digests = _Traced(), []

    def restored(held: list[Any]) -> Any:
        return eqx.combine(jax.tree.unflatten(structure, held), static)

    def trace(arguments: Any) -> None:
        closed, shape = jax.make_jaxpr(lambda held, a: restored(held)(*a), return_shape=True)(held, arguments)
        places = []
        for constant in closed.consts:
            known = [i for i, x in enumerate(closed_over) if x is constant]
            places.append(known[0] if known else len(closed_over))
            if not known:
                closed_over.append(constant)
        digests.append((digest(closed, constants=False), places))
        traced.variants[_signature(arguments)] = closed.jaxpr, places, jax.tree.structure(shape)

    trace(arguments)
    if nudged is not None:
        # Real parameters meet a complex state. If this fails, the call with complex arguments raises the error.
        with contextlib.suppress(TypeError, ValueError), jax.numpy_dtype_promotion("standard"):
            trace(nudged)
    traced.digest = repr(digests)
    if not any(isinstance(x, Tracer) for x in closed_over):
        traced.function = restored
    return Program(held, [jnp.asarray(x) for x in closed_over], traced)


def _signature(arguments: Any) -> Any:
    leaves, tree = jax.tree.flatten(arguments)
    return tree, tuple((np.shape(x), str(jnp.result_type(x))) for x in leaves)


class _Identity:
    """The identity of a function in a system: its `id`, or a digest of the program that the system makes of it."""

    def __init__(self, function: Any, key: Any, static: Any) -> None:
        self.function, self.static = function, static
        self.key = (id(function) if key is None else key, type(function))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


class Closure(eqx.Module):
    """A Python function whose leaves are the traced arrays in its closure and its defaults."""

    traced: PyTree
    identity: _Identity = eqx.field(static=True)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        f = self.identity.function
        if jax.tree.leaves(self.traced):
            cells, defaults, named_defaults = eqx.combine(self.traced, self.identity.static)
            if isinstance(f, functools.partial):
                f = functools.partial(cells, *defaults, **named_defaults)
            else:
                f = types.FunctionType(
                    f.__code__, f.__globals__, f.__name__, defaults, tuple(map(types.CellType, cells))
                )
                f.__kwdefaults__ = named_defaults
        return f(*arguments, **named)


def as_closures(tree: PyTree, key: Any = None, seen: tuple[Any, ...] = ()) -> PyTree:
    """Return a tree whose Python functions are replaced by `Closure`s that compare equal if `key` is equal."""

    def convert(f: Any) -> Any:
        if any(f is x for x in seen):
            return f
        if type(f) is functools.partial:
            parts: Any = f.func, f.args, f.keywords
        elif isinstance(f, types.FunctionType):
            try:
                cells = tuple(cell.cell_contents for cell in f.__closure__ or ())
            except ValueError:  # a cell that is not filled yet
                return f
            parts = cells, f.__defaults__, f.__kwdefaults__
        else:
            return f
        parts = as_closures(parts, key, (*seen, f))
        traced, static = eqx.partition(parts, lambda x: isinstance(x, Tracer))
        return Closure(traced, _Identity(f, key, static))

    return jax.tree.map(convert, tree)
