"""Keeping the compiler from computing the same thing again and again inside the loops over time."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Literal
from jaxtyping import Array

from ._flat import SMALL, bind, variables
from ._trigonometry import is_served, sine_and_cosine

# What costs many times an addition. Powers with integer exponents are a few multiplications, and are left alone.
_COSTLY = {
    *("sin", "cos", "tan", "asin", "acos", "atan", "atan2", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh"),
    *("exp", "exp2", "expm1", "log", "log1p", "logistic", "pow", "cbrt", "erf", "erfc", "erf_inv", "lgamma", "digamma"),
}

# Differences of neighbours are sums of these.
_SHIFTED = {"slice", "concatenate"}

# An array of which several parts are taken is computed once.
_CUTS = {"slice", "split"}


def arrange(jaxpr: Any, known: dict[Any, Any], wanted: Any, effects: bool = True) -> list[Any]:
    """Return variables of a flat jaxpr, from those that are known, with or without its effects.

    On a CPU what is shared is computed once; numbers are the same up to rounding. There, XLA fuses elementwise
    operations into each of their uses, computing them anew in each: a force and the readings of three parameters that
    share a sine cost four sines. A barrier keeps the first; likewise, in short arrays, the differences of neighbours.
    Sines and cosines are our own (`_trigonometry`), a sine and a cosine of the same number being computed together, as
    for a force and its slope. Zeros beside a short array, which the derivative of a difference is made of, are put
    there by one copy instead of by conditions in the innermost loop.
    """
    arranger = _Arranger(_needed(jaxpr, wanted, effects), known)
    return [arranger.value(v) for v in wanted]


class _Arranger:
    """Runs operations so that the compiler keeps what is worth it. What is done for an array is done for minus it."""

    def __init__(self, equations: list[Any], known: dict[Any, Any]) -> None:
        self.known = dict(known)
        self.negated = {e.outvars[0]: e.invars[0] for e in equations if e.primitive.name == "neg"}
        self.angles = [{e.invars[0] for e in equations if _turns(e, name)} for name in ("sin", "cos")]
        self.cuts = Counter(self.bare(e.invars[0]) for e in equations if e.primitive.name in _CUTS)
        self.paddings: dict[Any, list[Any]] = {}
        for e in equations:
            if _frames(e):
                self.paddings.setdefault(self.bare(e.invars[0]), []).append(e.params["padding_config"])
        self.kept: dict[Any, Array] = {}
        self.shifted: set[Any] = set()
        for equation in equations:
            results = self.results(equation)
            if equation.primitive.name in _SHIFTED:
                self.shifted.update(equation.outvars)
            self.known.update(zip(equation.outvars, results, strict=True))

    def value(self, v: Any) -> Any:
        return v.val if isinstance(v, Literal) else self.known[v]

    def bare(self, v: Any) -> Any:
        """Return what a variable is up to a sign."""
        return v if isinstance(v, Literal) else self.negated.get(v, v)

    def keep(self, key: Any, make: Callable[[], Array]) -> Array:
        """Return an array that is made once."""
        if key not in self.kept:
            self.kept[key] = jax.lax.optimization_barrier(make())
        return self.kept[key]

    def results(self, equation: Any) -> list[Any]:
        name, operands = equation.primitive.name, [self.value(v) for v in equation.invars]
        if _turns(equation, name):
            return [self.turned(name, equation.invars[0])]
        first = equation.invars[0] if equation.invars else None
        if _frames(equation):
            return self.signed(first, [self.framed(equation)])
        if name in _CUTS and self.cuts[self.bare(first)] > 1 and _is_small(equation):
            x = self.keep(self.bare(first), lambda: self.value(self.bare(first)))
            return self.signed(first, bind(equation.primitive, equation.params, [x, *operands[1:]]))
        results = bind(equation.primitive, equation.params, operands)
        return [jax.lax.optimization_barrier(results[0])] if _is_shared(equation, self.shifted) else results

    def signed(self, v: Any, results: list[Any]) -> list[Any]:
        return results if self.bare(v) is v else [-x for x in results]

    def turned(self, name: str, angle: Any) -> Array:
        """Return the sine or the cosine of a variable, which are one complex number where both are needed."""
        x = self.value(angle)
        if not all(angle in angles for angles in self.angles):
            return self.keep((name, angle), lambda: sine_and_cosine(x)[name == "cos"])
        both = self.keep(("both", angle), lambda: jax.lax.complex(*sine_and_cosine(x)))
        return jnp.real(both) if name == "sin" else jnp.imag(both)

    def framed(self, equation: Any) -> Array:
        """Return an array with zeros beside it, out of the one with all the zeros that are wanted beside it."""
        source, paddings = self.bare(equation.invars[0]), self.paddings[self.bare(equation.invars[0])]
        most = [(max(p[0] for p in axis), max(p[1] for p in axis), 0) for axis in zip(*paddings, strict=True)]
        whole = self.keep(("framed", source), lambda: _padded(self.value(source), self.value(equation.invars[1]), most))
        starts = [m[0] - p[0] for m, p in zip(most, equation.params["padding_config"], strict=True)]
        ends = [start + n for start, n in zip(starts, equation.outvars[0].aval.shape, strict=True)]
        return jax.lax.slice(whole, starts, ends)


def _needed(jaxpr: Any, wanted: Any, effects: bool) -> list[Any]:
    """Return the equations that the wanted variables depend on, in their order."""
    needed, equations = set(variables(wanted)), []
    for equation in reversed(jaxpr.eqns):
        if (effects and equation.effects) or not needed.isdisjoint(equation.outvars):
            needed.update(variables(equation.invars))
            equations.append(equation)
    return equations[::-1]


def _turns(equation: Any, name: str) -> bool:
    """Return whether this is the sine or cosine, as `name` says, of an array that is served here."""
    if equation.primitive.name != name or name not in ("sin", "cos") or equation.params.get("accuracy") is not None:
        return False
    aval = equation.outvars[0].aval
    return aval.ndim > 0 and is_served(aval.dtype)


def _is_shared(equation: Any, shifted: set[Any]) -> bool:
    """Return whether an array is worth being kept for all its uses."""
    if not equation.outvars or not equation.outvars[0].aval.ndim:
        return False
    name = equation.primitive.name
    difference = name in ("add", "sub") and not shifted.isdisjoint(variables(equation.invars))
    return name in _COSTLY or (difference and _is_small(equation))


def _frames(equation: Any) -> bool:
    """Return whether this puts zeros beside a short array."""
    if equation.primitive.name != "pad" or not _is_small(equation):
        return False
    filler = equation.invars[1]
    widens = all(before >= 0 <= after and not between for before, after, between in equation.params["padding_config"])
    return widens and isinstance(filler, Literal) and filler.val == 0


def _is_small(equation: Any) -> bool:
    aval = equation.outvars[0].aval
    return aval.size * aval.dtype.itemsize <= SMALL


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
