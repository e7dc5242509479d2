"""Bodies of loops over time, rearranged so that the compiler of a CPU computes nothing twice."""

import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal
from jaxtyping import Array

from .._internal import _tree
from .._internal._errors import ArgumentTypeError
from .._internal._jaxpr import bind, interpret, live, unwrapped, variables
from ._flat import flat
from ._trigonometry import is_served, sine_and_cosine

_LOG = logging.getLogger("echograd")

# Bytes.
_SMALL = 1 << 15

# Operations that cost many additions. Powers with integer exponents are a few multiplications and are left alone.
_COSTLY = {
    *("sin", "cos", "tan", "asin", "acos", "atan", "atan2", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh"),
    *("exp", "exp2", "expm1", "log", "log1p", "logistic", "pow", "cbrt", "erf", "erfc", "erf_inv", "lgamma", "digamma"),
}

# A difference of neighbours is a sum of results of these.
_SHIFTED = {"slice", "concatenate"}

# An array from which several parts are taken is computed once.
_CUTS = {"slice", "split"}


def rearranged(closed: Any) -> Any:
    """Return a closed jaxpr that computes the same, arranged for the compiler of a CPU.

    Numbers are the same up to rounding. There XLA fuses elementwise operations into each of their uses, so it computes
    them anew in each: a force and the readings of three parameters that share a sine cost four sines. An optimization
    barrier prevents this for costly functions and, in short arrays, for differences of neighbours. Sines and cosines
    are our own (`_trigonometry`); a sine and a cosine of the same number are computed together, as for a force and its
    slope. The derivative of a difference pads short arrays with zeros. These are padded once, by a copy, instead of by
    conditions in the innermost loop.

    A jaxpr that cannot be rearranged is returned unchanged.
    """
    if any(_tree.varying(v.aval) for e in closed.jaxpr.eqns for v in e.outvars):  # inside a shard_map
        return closed
    try:
        program = flat(closed)
        arranger = _Arranger(program.jaxpr)
        arranged = jax.make_jaxpr(lambda *x: list(map(unwrapped, interpret(program, x, arranger.results))))
        program = arranged(*closed.in_avals)
        if list(map(_type, program.out_avals)) != list(map(_type, closed.out_avals)):
            raise ArgumentTypeError("the types of the results differ")
    except Exception as error:
        _LOG.warning("A loop could not be arranged for the CPU and runs as it is: %r. Please report this.", error)
        return closed
    return program


def _type(aval: Any) -> Any:
    return aval.shape, aval.dtype


class _Arranger:
    """A rule for `interpret`. It keeps arrays that are worth it; x and -x share one computation."""

    def __init__(self, jaxpr: Any) -> None:
        equations, _ = live(jaxpr)
        self.negated = {e.outvars[0]: e.invars[0] for e in equations if _name(e) == "neg"}
        self.angles = [{e.invars[0] for e in equations if _is_served(e, name)} for name in ("sin", "cos")]
        self.cuts = Counter(self.bare(e.invars[0]) for e in equations if _name(e) in _CUTS)
        self.paddings: dict[Any, list[Any]] = {}
        for e in filter(_pads, equations):
            self.paddings.setdefault(self.bare(e.invars[0]), []).append(e.params["padding_config"])
        self.kept: dict[Any, Array] = {}
        self.shifted = {v for e in equations if _name(e) in _SHIFTED for v in e.outvars}

    def bare(self, v: Any) -> Any:
        """Return the variable of which this is the negative, or else the variable itself."""
        return v if isinstance(v, Literal) else self.negated.get(v, v)

    def keep(self, key: Any, make: Callable[[], Array]) -> Array:
        """Return an array that is computed once."""
        if key not in self.kept:
            self.kept[key] = jax.lax.optimization_barrier(make())
        return self.kept[key]

    def results(self, e: Any, value: Callable[[Any], Any]) -> list[Any]:
        if _is_served(e, _name(e)):
            return [self.sine_or_cosine(_name(e), e.invars[0], value)]
        if _pads(e):
            return self.signed(e.invars[0], [self.padded(e, value)])
        if _name(e) in _CUTS and self.cuts[self.bare(e.invars[0])] > 1 and _is_small(e):
            source = self.bare(e.invars[0])
            x = self.keep(source, lambda: unwrapped(value(source)))
            return self.signed(e.invars[0], bind(e, [x, *map(value, e.invars[1:])]))
        results = bind(e, list(map(value, e.invars)))
        return [jax.lax.optimization_barrier(results[0])] if _is_shared(e, self.shifted) else results

    def signed(self, v: Any, results: list[Any]) -> list[Any]:
        return results if self.bare(v) is v else [-x for x in results]

    def sine_or_cosine(self, name: str, angle: Any, value: Callable[[Any], Any]) -> Array:
        """Return the sine or the cosine of a variable. If both are needed, they are one complex number."""
        if not all(angle in angles for angles in self.angles):
            return self.keep((name, angle), lambda: sine_and_cosine(value(angle))[name == "cos"])
        both = self.keep(("both", angle), lambda: jax.lax.complex(*sine_and_cosine(value(angle))))
        return jnp.real(both) if name == "sin" else jnp.imag(both)

    def padded(self, e: Any, value: Callable[[Any], Any]) -> Array:
        """Return an array padded with zeros: a slice of the one with the widest padding that is needed."""
        source = self.bare(e.invars[0])
        axes = zip(*self.paddings[source], strict=True)
        most = [(max(p[0] for p in axis), max(p[1] for p in axis)) for axis in axes]
        whole = self.keep(("padded", source), lambda: _padded(value(source), most))
        starts = [m[0] - p[0] for m, p in zip(most, e.params["padding_config"], strict=True)]
        ends = [start + n for start, n in zip(starts, e.outvars[0].aval.shape, strict=True)]
        return jax.lax.slice(whole, starts, ends)


def _name(equation: Any) -> str:
    return equation.primitive.name


def _is_served(e: Any, name: str) -> bool:
    """Return whether this is the sine or cosine (`name`) of an array of a dtype that `_trigonometry` serves."""
    if _name(e) != name or name not in ("sin", "cos") or e.params.get("accuracy") is not None:
        return False
    return bool(variables(e.invars)) and _is_array(e) and is_served(e.outvars[0].aval.dtype)


def _is_shared(e: Any, shifted: set[Any]) -> bool:
    """Return whether an array is worth keeping for all its uses."""
    if not _is_array(e):
        return False
    difference = _name(e) in ("add", "sub") and not shifted.isdisjoint(variables(e.invars))
    return _name(e) in _COSTLY or (difference and _is_small(e))


def _pads(e: Any) -> bool:
    """Return whether this pads a short array with zeros."""
    if _name(e) != "pad" or not _is_small(e) or isinstance(e.invars[0], Literal):
        return False
    filler = e.invars[1]
    widens = all(before >= 0 <= after and not between for before, after, between in e.params["padding_config"])
    return widens and isinstance(filler, Literal) and bool(filler.val == 0)


def _is_array(e: Any) -> bool:
    """Return whether the first result is an array of numbers with axes."""
    aval = e.outvars[0].aval if e.outvars else None
    return isinstance(getattr(aval, "dtype", None), np.dtype) and aval.ndim > 0  # pyright: ignore[reportOptionalMemberAccess]


def _is_small(e: Any) -> bool:
    """Return whether the first result fits the innermost cache, where copying costs less than computing again."""
    aval = e.outvars[0].aval
    return _is_array(e) and aval.size * aval.dtype.itemsize <= _SMALL


def _padded(x: Array, widths: Any) -> Array:
    """Return an array padded with zeros, by copying."""
    for axis, (before, after) in enumerate(widths):
        parts = [jax.lax.optimization_barrier(x)]
        for width, place in ((before, 0), (after, 2)):
            if width:
                # Without the barriers the compiler turns this into a padding again.
                block = jnp.zeros((*x.shape[:axis], width, *x.shape[axis + 1 :]), x.dtype)
                parts.insert(place, jax.lax.optimization_barrier(block))
        if len(parts) > 1:
            x = jax.lax.optimization_barrier(jax.lax.concatenate(parts, axis))
    return x
