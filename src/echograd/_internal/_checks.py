"""Checks of arguments: each returns the value to work with, or raises an error of one sentence."""

import contextlib
import itertools
import operator
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, PRNGKeyArray, PyTree

from . import _tree
from ._errors import ArgumentError, ArgumentTypeError, said

_LONGEST = 80


def shown(x: Any) -> str:
    """Return a value for a message, in at most 80 characters: arrays by dtype and shape."""
    text = " ".join(eqx.tree_pformat(_cut(x), short_arrays=True, struct_as_array=True).split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _cut(x: Any) -> Any:
    """Return the part of a long text or collection that fills a message; formatting all of it would take long."""
    if isinstance(x, str | bytes):
        return x[: _LONGEST + 1]
    if type(x) in (list, tuple):
        return type(x)(map(_cut, x[:_LONGEST]))
    if type(x) is dict:
        return {key: _cut(x[key]) for key in itertools.islice(x, _LONGEST)}
    return x


def converter(check: Callable[..., Any], owner: str, name: str, *more: Any, **options: Any) -> Callable[[Any], Any]:
    """Return a check of this module as the converter of an `equinox` field."""
    return lambda x: check(owner, name, x, *more, **options)


def optional(check: Callable[..., Any], owner: str, name: str, *more: Any, **options: Any) -> Callable[[Any], Any]:
    """Return the converter of a field that may also be `None`."""
    return lambda x: None if x is None else check(owner, name, x, *more, **options)


@contextlib.contextmanager
def reverse_mode(owner: str, gradient: Any) -> Iterator[None]:
    """Replace JAX's error about forward mode through a custom reverse rule by ours."""
    try:
        yield
    except TypeError as error:
        if "forward-mode autodiff" not in str(error):
            raise
        raise ArgumentTypeError(
            f"{owner}: forward mode (jvp, jacfwd) cannot differentiate through {type(gradient).__name__}(), which "
            "reads its gradient off a nudged run. Use reverse mode (grad, vjp, jacrev; forward over reverse for second "
            "derivatives, as jax.hessian does), or gradient=Backprop()."
        ) from error


def instance(owner: str, name: str, x: Any, kind: type | tuple[type, ...], what: str) -> Any:
    """Return `x` if it is an instance of `kind`; `what` describes such an instance in the message."""
    if not isinstance(x, kind):
        raise ArgumentTypeError(f"{owner}: {name}={shown(x)} is not {what}.")
    return x


def flag(owner: str, name: str, x: Any) -> bool:
    """Return a boolean."""
    if not isinstance(x, bool | np.bool_):
        raise ArgumentTypeError(f"{owner}: {name}={shown(x)} must be True or False.")
    return bool(x)


def choice(owner: str, name: str, x: Any, choices: Any) -> Any:
    """Return one of several strings."""
    if not isinstance(x, str) or x not in choices:
        raise ArgumentError(f"{owner}: {name}={shown(x)}; choose one of {', '.join(map(repr, choices))}.")
    return x


def integer(owner: str, name: str, x: Any, least: int = 1, most: int = 2**31 - 1, what: str = "it") -> int:
    """Return a Python integer within bounds; `what` names in the message what it counts."""
    try:
        n = None if isinstance(x, bool | np.bool_) else operator.index(x)
    except TypeError:  # JAX raises this for traced integers, too
        n = None
    if n is None or not least <= n <= most:
        limit = f"at least {least}" if n is None or n < least else f"at most {most}"
        raise ArgumentError(f"{owner}: {name}={shown(x)}; {what} must be a Python integer of {limit}.")
    return n


def number(
    owner: str,
    name: str,
    x: Any,
    holds: Callable[[Any], Any] = np.isfinite,
    what: str = "it must be a finite number",
    *,
    dtype: Any = None,
    at_run_time: bool = False,
) -> Any:
    """Return one real number: Python and NumPy numbers as a Python float, arrays as an array, of `dtype` if given.

    `holds` is the condition, `what` says it in words. It is checked after conversion to `dtype`. NaN is never accepted.
    Traced numbers are checked only `at_run_time`.
    """
    why = f"{owner}: {name}={shown(x)}; {what}."
    try:
        array = x if isinstance(x, jax.Array) else np.asarray(x)
    except (TypeError, ValueError):
        array = np.asarray(None)
    if not (jnp.issubdtype(array.dtype, jnp.floating) or jnp.issubdtype(array.dtype, jnp.integer)):
        raise ArgumentError(f"{owner}: {name}={shown(x)} is not a real number; {what}.")
    if array.shape != ():
        raise ArgumentError(f"{owner}: {name} has shape {array.shape}, and one number is needed; {what}.")
    if isinstance(array, Tracer):
        array = array if dtype is None else array.astype(dtype)
        return eqx.error_if(array, jnp.isnan(array) | ~_holds_traced(holds, array), why) if at_run_time else array
    why = f"{owner}: {name}={float(array)!r}; {what}."
    with np.errstate(over="ignore", under="ignore"):
        value = float(array if dtype is None else np.asarray(array).astype(dtype))
    if np.isnan(value) or not holds(value):
        raise ArgumentError(why)
    if dtype is not None:
        return jnp.asarray(value, dtype)
    return jnp.asarray(array) if isinstance(x, jax.Array | np.ndarray) else value


def _holds_traced(holds: Callable[[Any], Any], x: Array) -> Array:
    return jnp.isfinite(x) if holds is np.isfinite else holds(x)


def constant(owner: str, name: str, x: Any, holds: Callable[[Any], Any], what: str) -> float:
    """Return a Python float; compiled programs hold it as a constant, so it must not be traced."""
    if isinstance(x, Tracer):
        raise ArgumentTypeError(f"{owner}: {name}={shown(x)} is traced, but must be a constant. Pass a Python number.")
    return float(number(owner, name, x, holds, what))


def interval(owner: str, name: str, x: Any, what: str, holds: Callable[[Any], Any]) -> tuple[float, float]:
    """Return the two bounds of an interval as Python floats."""
    if not isinstance(x, tuple | list) or len(x) != 2:
        raise ArgumentError(f"{owner}: {name}={shown(x)} is not a pair (low, high); {what}.")
    low, high = (constant(owner, f"{name}[{i}]", bound, holds, what) for i, bound in enumerate(x))
    if not low <= high:
        raise ArgumentError(f"{owner}: {name}={shown(x)} has the larger bound first; {what}.")
    return low, high


def tolerance(
    owner: str,
    name: str,
    x: Any,
    holds: Callable[[Any], Any] = lambda x: x > 0,
    what: str = "the largest error accepted; float('inf') accepts any",
) -> float | None:
    """Return a tolerance, or `None` for the default."""
    limit = "number of at least 0" if holds is not_negative else "positive number"
    return None if x is None else constant(owner, name, x, holds, f"it must be a {limit}: {what}")


def positive(x: Any) -> Any:
    """Return whether a number is positive and finite."""
    return (x > 0) & (x < np.inf)


def not_negative(x: Any) -> Any:
    """Return whether a number is zero or positive, and finite."""
    return (x >= 0) & (x < np.inf)


def key(owner: str, x: Any, name: str = "key") -> PRNGKeyArray:
    """Return one random key."""
    dtype, shape = getattr(x, "dtype", None), getattr(x, "shape", None)
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key) and shape == ()
    if not typed and not (dtype == jnp.uint32 and len(shape or ()) == 1 and x.size >= 2):
        raise ArgumentTypeError(f"{owner}: {name}={shown(x)} is not one random key. Pass jax.random.key(0), say.")
    return x


def function(owner: str, name: str, x: Any, signature: str) -> Any:
    """Return a callable that is not a class."""
    if not callable(x) or isinstance(x, type):
        raise ArgumentTypeError(f"{owner}: {name}={shown(x)} is not a function {signature}.")
    return x


def returned(owner: str, call: str, function: Callable[..., Any], *arguments: Any) -> PyTree:
    """Return the shapes of the result of a user's function. If it raises, that error is the cause of ours.

    `call` is the call as text, such as `"cost(t, q, p)"`; `arguments` are arrays or their shapes, in its order.
    """
    try:
        return eqx.filter_eval_shape(lambda *arguments: function(*arguments), *arguments)
    except Exception as error:
        names = call.partition("(")[2].rstrip(")").split(", ")
        given = ", ".join(f"{name}={shown(x)}" for name, x in zip(names, arguments, strict=True))
        kind = ArgumentTypeError if isinstance(error, TypeError) else ArgumentError
        raise kind(f"{owner}: {call} failed for {given}: {said(error)}") from error


def scalar(owner: str, call: str, function: Callable[..., Any], *arguments: Any, integers: bool = False) -> None:
    """Raise unless a user's function returns one real number; arguments as for `returned`."""
    value = returned(owner, call, function, *arguments)
    dtype = getattr(value, "dtype", type(value))
    if isinstance(dtype, type):
        real = dtype is float or (integers and dtype is int)
    else:
        kinds = (jnp.floating, jnp.integer, jnp.bool_) if integers else (jnp.floating,)
        real = any(jnp.issubdtype(dtype, kind) for kind in kinds)
    if getattr(value, "shape", ()) != () or not real:
        raise ArgumentError(
            f"{owner}: {call} must return one real number, but returned {shown(value)}. Sum it over coordinates and "
            "take the real part of complex numbers; for a batch use vmap."
        )


def numbers(owner: str, name: str, x: PyTree) -> PyTree:
    """Return `x` with all leaves as arrays, or name the leaf that cannot be one."""

    def convert(path: Any, leaf: Any) -> Array:
        if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct):
            return leaf  # pyright: ignore[reportReturnType]
        try:
            array = np.asarray(leaf)
        except (TypeError, ValueError):
            array = np.asarray(None)
        if not (jnp.issubdtype(array.dtype, jnp.number) or array.dtype == bool):
            where = f"{name}{jax.tree_util.keystr(path)}"
            raise ArgumentTypeError(f"{owner}: {where} is {shown(leaf)}, not an array of numbers.")
        with np.errstate(over="ignore"):
            return jnp.asarray(leaf)

    return jax.tree_util.tree_map_with_path(convert, x)


def state(owner: str, name: str, x: PyTree, *, nan: bool = False) -> PyTree:
    """Return `x` with all leaves as real floating-point arrays. Concrete numbers must be finite, unless `nan`."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(x):
        if path and isinstance(path[-1], jax.tree_util.SequenceKey) and isinstance(leaf, int | float | complex):
            raise ArgumentTypeError(
                f"{owner}: {name} is {shown(x)}, a sequence of numbers. JAX treats it as a tree of scalars. Pass an "
                "array: jnp.array([...])."
            )
    x = array(owner, name, x, nan=nan)
    if jax.tree.leaves(x) and not sum(leaf.size for leaf in jax.tree.leaves(x)):
        raise ArgumentError(f"{owner}: {name}={shown(x)} holds no numbers.")
    return x


def array(owner: str, name: str, x: PyTree, *, nan: bool = False) -> PyTree:
    """Return `x` as a real floating-point array or a tree of them. Concrete numbers must be finite, unless `nan`."""

    def convert(path: Any, leaf: Array) -> Array:
        where = f"{name}{jax.tree_util.keystr(path)}"
        if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
            raise ArgumentError(
                f"{owner}: {where} is complex, but must be real. The coordinates and momenta of a complex wave are "
                "its real and imaginary parts: InitialValue(*canonical(psi))."
            )
        if not jnp.issubdtype(leaf.dtype, jnp.floating) and not jnp.issubdtype(leaf.dtype, jnp.integer):
            raise ArgumentTypeError(f"{owner}: {where} is {shown(leaf)}, not an array of real numbers.")
        return leaf if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf.astype(jnp.result_type(float))

    x = jax.tree_util.tree_map_with_path(convert, numbers(owner, name, x))
    _tree.check_digits(owner, name, x)
    return x if nan else finite(owner, name, x)


def finite(owner: str, name: str, x: PyTree) -> PyTree:
    """Return `x`, or raise if a concrete array in it holds a NaN or an infinity."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(eqx.filter(x, eqx.is_inexact_array)):
        if isinstance(leaf, Tracer) or not getattr(leaf, "is_fully_addressable", True):
            continue
        if not np.all(np.isfinite(np.asarray(leaf))):
            raise ArgumentError(f"{owner}: {name}{jax.tree_util.keystr(path)} holds a NaN or an infinity.")
    return x


def signed(owner: str, name: str, x: Any, sign: str = "any") -> Array:
    """Return a finite real array of one sign ("any", "positive", "not negative"). Traced arrays are not checked."""
    x = array(owner, name, x)
    if not isinstance(x, jax.Array):
        raise ArgumentTypeError(f"{owner}: {name}={shown(x)} is not one array of real numbers.")
    if sign != "any" and not isinstance(x, Tracer) and getattr(x, "is_fully_addressable", True):
        known = np.asarray(x)
        if not np.all(known > 0 if sign == "positive" else known >= 0):
            raise ArgumentError(f"{owner}: {name}={known if known.size < 9 else shown(x)} must be {sign}.")
    return x


def same_shapes(owner: str, name: str, a: PyTree, other: str, b: PyTree) -> None:
    """Raise unless two trees have the same structure and shapes and hold at least one number."""
    if jax.tree.structure(a) != jax.tree.structure(b):
        raise ArgumentError(
            f"{owner}: {name} and {other} have different structures, {jax.tree.structure(a)} and "
            f"{jax.tree.structure(b)}. Every coordinate needs its own entry in {other}."
        )
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True):
        if jnp.shape(x) != jnp.shape(y):
            raise ArgumentError(
                f"{owner}: {name}{jax.tree_util.keystr(path)} has shape {jnp.shape(x)} but {other} has {jnp.shape(y)} "
                f"there. Give {other} one number per coordinate."
            )
    if not sum(np.size(x) for x in jax.tree.leaves(a)):
        raise ArgumentError(f"{owner}: the state holds no numbers. Give {name} at least one array that is not empty.")


def pair(owner: str, name: str, x: Any, *, nan: bool = False) -> tuple[PyTree, PyTree]:
    """Return a state: a pair of coordinates and momenta of the same structure and shapes."""
    if not isinstance(x, tuple) or len(x) != 2:
        raise ArgumentTypeError(f"{owner}: {name}={shown(x)} is not a pair (q, p) of coordinates and momenta.")
    q, p = (state(owner, f"{name}[{i}]", part, nan=nan) for i, part in enumerate(x))
    same_shapes(owner, f"{name}[0]", q, f"{name}[1]", p)
    return q, p
