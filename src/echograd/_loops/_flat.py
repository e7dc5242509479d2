"""Programs as flat lists of operations, each of them once: what `_once` and `_sums` rearrange."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend.core import Literal
from jax.extend.core.primitives import integer_pow_p, mul_p, slice_p
from jaxtyping import PyTree

Window = tuple[tuple[int, int], ...]

# Arrays up to here stay in the innermost cache, where to write and read them again costs less than to compute them
# again; of longer ones, every pass over memory counts.
SMALL = 1 << 15

_ELEMENTWISE = {"add", "add_any", "sub", "mul", "neg", "div"}
# Calls that stand for the operations of the program in this parameter of theirs.
_CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr"}
# So do these, but for their derivatives; constants have none.
_RULED = {"custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr"}


def flat(f: Callable[..., Any], *arguments: Any) -> tuple[Any, list[Any], PyTree]:
    """Return the jaxpr of `f` at its arguments, its constants, and the tree of its results.

    Functions that are called are written out (but not the bodies of loops and branches), equal things are there once,
    what only numbers decide is decided, zeros are not added, divisions share their reciprocals, and a window of an
    array is one of what it is made of, without the padding that it does not show. Arrays that `f` closes over,
    constants of the jaxpr, are multiplied by the numbers that stand beside them, so that the compiler can take this
    out of a loop.
    """
    closed, shape = jax.make_jaxpr(f, return_shape=True)(*arguments)

    def written_out(*leaves: Any) -> list[Any]:
        return _Writer(closed.consts).run(closed.jaxpr, closed.consts, leaves)

    written = jax.make_jaxpr(written_out)(*jax.tree.leaves(arguments))
    return written.jaxpr, written.consts, jax.tree.structure(shape)


def bind(primitive: Any, params: dict[str, Any], operands: list[Any]) -> list[Any]:
    """Return the results of an operation."""
    bound = primitive.get_bind_params(params)
    functions, params = bound if isinstance(bound, tuple) else ((), bound)  # a tuple before jax 0.11
    results = primitive.bind(*functions, *operands, **params)
    return list(results) if primitive.multiple_results else [results]


def variables(atoms: Any) -> list[Any]:
    """Return those that are no numbers."""
    return [v for v in atoms if not isinstance(v, Literal)]


def hashable(params: dict[str, Any]) -> Any:
    """Return parameters as something that can be compared, or `None` if they cannot."""
    key = tuple(sorted(params.items()))
    try:
        hash(key)
    except TypeError:
        return None
    return key


class _Writer:
    """Runs a jaxpr, operation by operation. Arrays are known by their ids, so that they are kept."""

    def __init__(self, consts: Any) -> None:
        self.done: dict[Any, list[Any]] = {}
        self.zeros: set[int] = set()
        self.constants: set[int] = set()
        self.lasting = {id(x) for x in consts}
        self.multiples: dict[int, tuple[Any, Any]] = {}
        self.scaled: dict[int, tuple[Any, Any]] = {}
        self.made: dict[int, tuple[Any, dict[str, Any], list[Any]]] = {}
        self.padded: set[int] = set()
        self.shed: dict[tuple[int, Window], bool] = {}
        self.windows: dict[tuple[int, Window], Any] = {}
        self.kept = list(consts)

    def run(self, jaxpr: Any, consts: Any, arguments: Any) -> list[Any]:
        """Return its results."""
        known = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *arguments), strict=True))

        def value(v: Any) -> Any:
            if not isinstance(v, Literal):
                return known[v]
            return np.asarray(v.val, v.aval.dtype)[()]  # pyright: ignore[reportAttributeAccessIssue]

        for equation in jaxpr.eqns:
            operands = [value(v) for v in equation.invars]
            calls = _CALLS | _RULED if all(map(self.is_constant, operands)) else _CALLS
            inner = equation.params.get(calls.get(equation.primitive.name, ""))
            if inner is not None and hasattr(inner, "consts"):
                results = self.run(inner.jaxpr, inner.consts, operands)
            elif equation.effects:
                results = bind(equation.primitive, equation.params, operands)
            else:
                results = self.simplest(equation, operands)
            known.update(zip(equation.outvars, results, strict=True))
        return [value(v) for v in jaxpr.outvars]

    def simplest(self, equation: Any, operands: list[Any]) -> list[Any]:
        """Return the results of an operation, without it if possible."""
        name, primitive, params = equation.primitive.name, equation.primitive, equation.params
        if name in ("add", "add_any", "sub"):
            for x, y in (operands, operands[::-1])[: 1 if name == "sub" else 2]:
                if self.is_zero(y) and np.shape(x) == equation.outvars[0].aval.shape:
                    return [x]
        elif name == "select_n" and _is_number(operands[0]):
            return [operands[1 + int(operands[0])]]
        elif name == "neg" and self.is_zero(operands[0]):
            return operands
        elif name == "mul" and not all(map(self.lasts, operands)) and np.issubdtype(operands[0].dtype, np.inexact):
            return [self.multiplied(*operands)]
        elif name == "mul" and any(map(_is_number, operands)) and any(id(x) in self.zeros for x in operands):
            return [next(x for x in operands if id(x) in self.zeros)]
        elif name == "div" and not all(map(self.lasts, operands)) and np.issubdtype(operands[1].dtype, np.floating):
            return [self.multiplied(operands[0], self.inverse(operands[1]))]
        elif name == "integer_pow" and params["y"] < -1:
            return self.written(primitive, {"y": -params["y"]}, [self.inverse(operands[0])])
        elif name == "reduce_sum" and self.multiple(operands[0])[0] != 1:
            number, x = self.multiple(operands[0])
            return [self.multiplied(number, self.written(primitive, params, [x])[0])]
        elif name == "dot_general" and _is_inner(equation):
            inner = jax.make_jaxpr(lambda x, y: jnp.sum(x * y))(*(v.aval for v in equation.invars))
            return self.run(inner.jaxpr, inner.consts, operands)
        elif (window := _window(name, params, operands)) and self.sheds(operands[0], window):
            return [self.seen(operands[0], window)]
        elif operands and all(map(_is_number, operands)) and all(_is_plain(v.aval) for v in equation.outvars):
            with jax.ensure_compile_time_eval():
                return [np.asarray(x)[()] for x in bind(primitive, params, operands)]
        results = self.written(primitive, params, operands)
        if name == "broadcast_in_dim" and self.is_zero(operands[0]):
            self.zeros.add(id(results[0]))
        if name == "neg" and not self.lasts(operands[0]):
            number, x = self.multiple(operands[0])
            self.multiples[id(results[0])] = np.asarray(-number, x.dtype)[()], x
        return results

    def multiplied(self, x: Any, y: Any) -> Any:
        """Return a product that is not the same whatever the arguments are, with its numbers in one place."""

        def times(x: Any, y: Any) -> Any:
            return y if _is_number(x) and x == 1 and np.ndim(y) else self.written(mul_p, _beside_products(), [x, y])[0]

        if self.lasts(x):
            x, y = y, x
        (a, u), (b, v) = self.multiple(x), (y, None) if _is_number(y) else self.multiple(y)
        with np.errstate(all="ignore"):
            number = np.asarray(a * b, x.dtype)[()]
        if not np.isfinite(number) or abs(number) < np.sqrt(np.finfo(x.dtype).tiny):
            return times(x, y)
        if v is None and id(u) in self.scaled:
            v, u = self.scaled[id(u)]
        if v is not None and self.lasts(v):
            v = times(number, v)
            result = times(v, u)
            self.scaled[id(result)] = v, u
            return result
        product = u if v is None else times(u, v)
        result = times(number, product)
        self.kept.append(result)
        self.multiples[id(result)] = number, product
        return result

    def inverse(self, x: Any) -> Any:
        """Return the reciprocal, which many divisions by the same number can share."""
        if not _is_number(x):
            return self.written(integer_pow_p, {"y": -1}, [x])[0]
        with np.errstate(all="ignore"):
            return np.asarray(1 / np.asarray(x), x.dtype)[()]

    def written(self, primitive: Any, params: dict[str, Any], operands: list[Any]) -> list[Any]:
        """Return the results of an operation, those of the first time."""
        key = (primitive, hashable(params), *map(_identity, operands))
        if key not in self.done:
            results = bind(primitive, params, operands)
            self.kept += (*operands, *results)
            if len(results) == 1:
                self.made[id(results[0])] = primitive, params, operands
                if primitive.name == "pad" or (
                    primitive.name in {"slice", *_ELEMENTWISE} and not self.padded.isdisjoint(map(id, operands))
                ):
                    self.padded.add(id(results[0]))
            if all(map(self.lasts, operands)):
                self.lasting.update(map(id, results))
            if all(map(self.is_constant, operands)):
                self.constants.update(map(id, results))
            if key[1] is None:
                return results
            self.done[key] = results
        return self.done[key]

    def sheds(self, x: Any, window: Window) -> bool:
        """Return whether a window of an array shows nothing of some padding that went into it."""
        if id(x) not in self.padded:
            return False
        if (id(x), window) not in self.shed:
            name, params, operands = self.origin(x)
            inner = _window(name, params, operands)
            if inner is not None:
                shed = self.sheds(operands[0], _moved(window, inner))
            elif name == "pad":
                shed = _inside(params["padding_config"], window, operands[0].shape) is not None
            else:
                shed = name in _ELEMENTWISE and any(self.sheds(y, _shared(window, y)) for y in operands if np.ndim(y))
            self.shed[id(x), window] = shed
        return self.shed[id(x), window]

    def seen(self, x: Any, window: Window) -> Any:
        """Return a window of an array, without the padding that it does not show."""
        name, params, operands = self.origin(x)
        inner = _window(name, params, operands)
        if inner is not None:
            return self.seen(operands[0], _moved(window, inner))
        if not self.sheds(x, window):
            if window == tuple((0, n) for n in x.shape):
                return x
            starts, limits = zip(*window, strict=True)
            return self.written(slice_p, {"start_indices": starts, "limit_indices": limits, "strides": None}, [x])[0]
        if name == "pad":
            inner = _inside(params["padding_config"], window, operands[0].shape)
            assert inner is not None  # or it would not shed
            return self.seen(operands[0], inner)
        if (id(x), window) not in self.windows:
            parts = [self.seen(y, _shared(window, y)) if np.ndim(y) else y for y in operands]
            self.windows[id(x), window] = self.written(self.made[id(x)][0], params, parts)[0]
        return self.windows[id(x), window]

    def origin(self, x: Any) -> tuple[str, dict[str, Any], list[Any]]:
        """Return the operation that an array comes from."""
        primitive, params, operands = self.made.get(id(x), (None, {}, []))
        return getattr(primitive, "name", ""), params, operands

    def multiple(self, x: Any) -> tuple[Any, Any]:
        """Return an array as a number and what it multiplies."""
        return self.multiples.get(id(x), (1, x))

    def lasts(self, x: Any) -> bool:
        """Return whether something is the same whatever the arguments are."""
        return _is_number(x) or id(x) in self.lasting

    def is_constant(self, x: Any) -> bool:
        """Return whether something is made of numbers alone."""
        return _is_number(x) or id(x) in self.constants

    def is_zero(self, x: Any) -> bool:
        return (_is_number(x) and x == 0) or id(x) in self.zeros


def _is_inner(equation: Any) -> bool:
    """Return whether this is the inner product of two short vectors, which is a sum of products."""
    a, b, result = (v.aval for v in (*equation.invars, *equation.outvars))
    short = a.ndim == b.ndim == 1 and result.ndim == 0 and a.size * a.dtype.itemsize <= SMALL
    return short and a.dtype == b.dtype == result.dtype and np.issubdtype(a.dtype, np.inexact)


def _window(name: str, params: dict[str, Any], operands: list[Any]) -> Window | None:
    """Return which part of its operand an operation returns, if it does just that."""
    if name == "slice" and params["strides"] is None:
        return tuple(zip(params["start_indices"], params["limit_indices"], strict=True))
    if name == "pad" and all(
        before <= 0 >= after and not between for before, after, between in params["padding_config"]
    ):
        return tuple((-p[0], n + p[1]) for p, n in zip(params["padding_config"], operands[0].shape, strict=True))
    return None


def _moved(window: Window, inner: Window) -> Window:
    return tuple((a + start, b + start) for (a, b), (start, _) in zip(window, inner, strict=True))


def _shared(window: Window, operand: Any) -> Window:
    """Return the window of an operand that belongs to one of the result: an axis of length 1 serves for all of it."""
    return tuple((0, 1) if n == 1 else part for part, n in zip(window, operand.shape, strict=True))


def _inside(padding: Any, window: Window, shape: tuple[int, ...]) -> Window | None:
    """Return the window of an array that a window of it with padding is, or `None` if that shows padding."""
    inner = tuple((a - before, b - before) for (a, b), (before, _, _) in zip(window, padding, strict=True))
    plain = all(between == 0 for _, _, between in padding)
    return inner if plain and all(a >= 0 and b <= n for (a, b), n in zip(inner, shape, strict=True)) else None


@functools.cache
def _beside_products() -> dict[str, Any]:
    """Return the parameters of a multiplication, which depend on the version of JAX."""
    return jax.make_jaxpr(jax.lax.mul)(1.0, 1.0).eqns[0].params


def _is_number(x: Any) -> bool:
    return not isinstance(x, Tracer) and np.ndim(x) == 0 and isinstance(getattr(x, "dtype", None), np.dtype)


def _is_plain(aval: Any) -> bool:
    return aval.shape == () and isinstance(aval.dtype, np.dtype)


def _identity(x: Any) -> Any:
    return (x.dtype, np.asarray(x).tobytes()) if _is_number(x) else id(x)
