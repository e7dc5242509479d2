"""Keeping the compiler from computing the same thing again and again inside the loops over time."""

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
from ._flat import Flat, Operation, Value, flat
from ._trigonometry import is_served, sine_and_cosine

_LOG = logging.getLogger("echograd")

# Bytes.
_SMALL = 1 << 15

# What costs many times an addition. Powers with integer exponents are a few multiplications, and are left alone.
_COSTLY = {
    *("sin", "cos", "tan", "asin", "acos", "atan", "atan2", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh"),
    *("exp", "exp2", "expm1", "log", "log1p", "logistic", "pow", "cbrt", "erf", "erfc", "erf_inv", "lgamma", "digamma"),
}

# Differences of neighbours are sums of these.
_SHIFTED = {"slice", "concatenate"}

# An array of which several parts are taken is computed once.
_CUTS = {"slice", "split"}


def rearranged(closed: Any) -> Any:
    """Return a closed jaxpr that computes the same, arranged for the compiler of a CPU.

    What is shared is computed once; numbers are the same up to rounding. XLA fuses elementwise operations into each of
    their uses there, computing them anew in each: a force and the readings of three parameters that share a sine cost
    four sines. A barrier keeps the first; likewise, in short arrays, the differences of neighbours. Sines and cosines
    are our own (`_trigonometry`), a sine and a cosine of the same number being computed together, as for a force and
    its slope. Zeros beside a short array, which the derivative of a difference is made of, are put there by one copy
    instead of by conditions in the innermost loop.

    Whatever cannot be arranged is returned as it is.
    """
    if any(_tree.varying(v.aval) for e in closed.jaxpr.eqns for v in e.outvars):  # inside a shard_map
        return closed
    try:
        program = jax.make_jaxpr(lambda *arguments: _arranged(closed, arguments))(*closed.in_avals)
        if list(map(_type, program.out_avals)) != list(map(_type, closed.out_avals)):
            raise ArgumentTypeError("the types of the results differ")
    except Exception as error:
        _LOG.warning("A loop could not be arranged for the CPU and runs as it is: %r. Please report this.", error)
        return closed
    return program


def _type(aval: Any) -> Any:
    return aval.shape, aval.dtype


def _arranged(closed: Any, arguments: Any) -> list[Any]:
    """Return the results of a closed jaxpr."""
    program = flat(closed)
    known = program.constants | dict(zip(program.arguments, arguments, strict=True))
    arranger = _Arranger(_needed(program), known)
    return list(map(arranger.value, program.results))


class _Arranger:
    """Runs operations so that the compiler keeps what is worth it. An array x and -x share what is done for them."""

    def __init__(self, operations: list[Operation], known: dict[Any, Any]) -> None:
        self.known = known
        self.negated = {o.results[0]: o.operands[0] for o in operations if o.name == "neg"}
        self.angles = [{o.operands[0] for o in operations if _turns(o, name)} for name in ("sin", "cos")]
        self.cuts = Counter(self.bare(o.operands[0]) for o in operations if o.name in _CUTS)
        self.paddings: dict[Any, list[Any]] = {}
        for o in operations:
            if _frames(o):
                self.paddings.setdefault(self.bare(o.operands[0]), []).append(o.params["padding_config"])
        self.kept: dict[Any, Array] = {}
        self.shifted: set[Any] = set()
        for o in operations:
            self.known.update(zip(o.results, self.results(o), strict=True))
            if o.name in _SHIFTED:
                self.shifted.update(o.results)

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

    def results(self, o: Operation) -> list[Any]:
        operands = list(map(self.value, o.operands))
        if _turns(o, o.name):
            return [self.turned(o.name, o.operands[0])]
        first = o.operands[0] if o.operands else None
        if _frames(o):
            return self.signed(first, [self.framed(o)])
        if o.name in _CUTS and self.cuts[self.bare(first)] > 1 and _is_small(o):
            x = self.keep(self.bare(first), lambda: self.value(self.bare(first)))
            return self.signed(first, o.run([x, *operands[1:]]))
        results = o.run(operands)
        return [jax.lax.optimization_barrier(results[0])] if _is_shared(o, self.shifted) else results

    def signed(self, v: Any, results: list[Any]) -> list[Any]:
        return results if self.bare(v) is v else [-x for x in results]

    def turned(self, name: str, angle: Any) -> Array:
        """Return the sine or the cosine of a variable, which are one complex number where both are needed."""
        x = self.value(angle)
        if not all(angle in angles for angles in self.angles):
            return self.keep((name, angle), lambda: sine_and_cosine(x)[name == "cos"])
        both = self.keep(("both", angle), lambda: jax.lax.complex(*sine_and_cosine(x)))
        return jnp.real(both) if name == "sin" else jnp.imag(both)

    def framed(self, o: Operation) -> Array:
        """Return an array with zeros beside it, out of the one with all the zeros that are wanted beside it."""
        source, paddings = self.bare(o.operands[0]), self.paddings[self.bare(o.operands[0])]
        most = [(max(p[0] for p in axis), max(p[1] for p in axis), 0) for axis in zip(*paddings, strict=True)]
        whole = self.keep(("framed", source), lambda: _padded(self.value(source), most))
        starts = [m[0] - p[0] for m, p in zip(most, o.params["padding_config"], strict=True)]
        ends = [start + n for start, n in zip(starts, o.results[0].aval.shape, strict=True)]
        return jax.lax.slice(whole, starts, ends)


def _needed(program: Flat) -> list[Operation]:
    """Return the operations that the results depend on, and those with effects, in their order."""
    needed, operations = set(_values(program.results)), []
    for o in reversed(program.operations):
        if o.equation.effects or not needed.isdisjoint(o.results):
            needed.update(_values(o.operands))
            operations.append(o)
    return operations[::-1]


def _values(operands: Any) -> list[Value]:
    return [v for v in operands if isinstance(v, Value)]


def _turns(o: Operation, name: str) -> bool:
    """Return whether this is the sine or cosine, as `name` says, of an array that is served here."""
    if o.name != name or name not in ("sin", "cos") or o.params.get("accuracy") is not None:
        return False
    return isinstance(o.operands[0], Value) and _is_array(o) and is_served(o.results[0].aval.dtype)


def _is_shared(o: Operation, shifted: set[Any]) -> bool:
    """Return whether an array is worth being kept for all its uses."""
    if not _is_array(o):
        return False
    difference = o.name in ("add", "sub") and not shifted.isdisjoint(_values(o.operands))
    return o.name in _COSTLY or (difference and _is_small(o))


def _frames(o: Operation) -> bool:
    """Return whether this puts zeros beside a short array."""
    if o.name != "pad" or not _is_small(o) or not isinstance(o.operands[0], Value):
        return False
    filler = o.operands[1]
    widens = all(before >= 0 <= after and not between for before, after, between in o.params["padding_config"])
    return widens and isinstance(filler, Literal) and filler.val == 0


def _is_array(o: Operation) -> bool:
    """Return whether the first result is an array of numbers with axes."""
    aval = o.results[0].aval if o.results else None
    return isinstance(getattr(aval, "dtype", None), np.dtype) and aval.ndim > 0  # pyright: ignore[reportOptionalMemberAccess]


def _is_small(o: Operation) -> bool:
    """Return whether the first result stays in the innermost cache, where copying costs less than computing again."""
    aval = o.results[0].aval
    return _is_array(o) and aval.size * aval.dtype.itemsize <= _SMALL


def _padded(x: Array, widths: Any) -> Array:
    """Return an array with zeros beside it, by copying."""
    for axis, (before, after, _) in enumerate(widths):
        parts = [jax.lax.optimization_barrier(x)]
        for width, place in ((before, 0), (after, 2)):
            if width:
                # Behind a barrier, or the compiler turns all this into padding again.
                block = jnp.zeros((*x.shape[:axis], width, *x.shape[axis + 1 :]), x.dtype)
                parts.insert(place, jax.lax.optimization_barrier(block))
        if len(parts) > 1:
            x = jax.lax.optimization_barrier(jax.lax.concatenate(parts, axis))
    return x
