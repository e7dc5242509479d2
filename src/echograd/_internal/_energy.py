"""Derivatives of energies at a state, real or made complex by a complex nudge."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from . import _tree
from ._errors import ArgumentTypeError
from ._jaxpr import with_inner

# These operations are not holomorphic on complex numbers.
_NOT_HOLOMORPHIC = {"abs", "real", "imag", "conj", "sign", "is_finite", "max", "min", "clamp", "sort"} | {
    *("reduce_max", "reduce_min", "argmax", "argmin", "cummax", "cummin"),
}
# A choice between holomorphic functions by a comparison is holomorphic, except where the comparison changes.
_COMPARISONS = {"lt", "le", "gt", "ge", "eq", "ne"}


def derivatives(action: Callable[[Any, Any], Array], wanted: PyTree, x: PyTree) -> tuple[PyTree, PyTree]:
    r"""Return $\partial A/\partial(\text{wanted})$ and $\partial A/\partial x$ of a scalar `action(wanted, x)`.

    If `x` is complex, the action must be a holomorphic function of it, with the real arrays `wanted` as parameters.
    Both derivatives are then complex: the analytic continuations of the real ones.
    """
    if not _is_complex(x):
        return jax.grad(action, (0, 1))(wanted, x)

    if _is_complex(wanted):
        raise ArgumentTypeError(
            "Holomorphic() differentiates with respect to real parameters and inputs only, but one of these is "
            "complex: nothing would distinguish the nudge from its imaginary part. Use Richardson(beta, order), which "
            "nudges with real numbers, or Infinitesimal(); or keep real and imaginary part as two real arrays."
        )
    dtype = jnp.result_type(*(leaf.dtype for leaf in jax.tree.leaves(x)))

    def value(wanted: Any, x: Any) -> Array:
        # Real parameters meet a complex state. This promotion is intended even where JAX forbids implicit ones.
        with jax.numpy_dtype_promotion("standard"):
            return jnp.asarray(action(wanted, x)).astype(dtype)

    _check_holomorphic(lambda x: value(wanted, x), x)
    # JAX pulls a cotangent c of a complex number back to a real one as Re(c f'), and to a complex one as c f'.
    _, pull = jax.vjp(value, wanted, x)
    real, slope = pull(jnp.asarray(1, dtype))
    imaginary, _ = pull(jnp.asarray(-1j, dtype))
    return jax.tree.map(jax.lax.complex, real, imaginary), slope


def slope(energy: Callable[[Any], Array], x: PyTree) -> PyTree:
    r"""Return $\partial E/\partial x$ alone of a scalar `energy(x)`; `x` may be complex, as in `derivatives`."""
    return derivatives(lambda _, x: energy(x), None, x)[1]


def reading(action: Callable[[Any, Any], Array], wanted: PyTree, x: PyTree) -> PyTree:
    r"""Return $\partial A/\partial(\text{wanted})$ alone of a scalar `action(wanted, x)`, as `derivatives` does.

    XLA would remove the other derivative from the compiled program in any case, but tracing it takes long.
    """
    if _is_complex(x):
        return derivatives(action, wanted, x)[0]
    return jax.grad(action)(wanted, x) if jax.tree.leaves(wanted) else wanted


def zero_reading(wanted: PyTree, x: PyTree) -> PyTree:
    """Return zeros shaped like readings of `wanted` at `x`, to accumulate readings in."""
    zeros = _tree.zeros_like(wanted)
    return jax.tree.map(lambda r: r.astype(_tree.complexified(r.dtype)), zeros) if _is_complex(x) else zeros


def _is_complex(x: PyTree) -> bool:
    return any(jnp.iscomplexobj(leaf) for leaf in jax.tree.leaves(x))


def _check_holomorphic(value: Callable[[Any], Array], x: PyTree) -> None:
    remedy = (
        "Holomorphic() needs energies and costs that are holomorphic functions of the state: write them with "
        "polynomials, exp, sin, tanh, sqrt and the like, x**2 for abs(x)**2, sum(a * b) for vdot(a, b), and "
        "where(x > 0, x, 0) for max(x, 0): a condition may compare the state, as long as the nudge does not change it. "
        "Or use Richardson(beta, order), which nudges with real numbers, or Infinitesimal()."
    )
    try:
        jaxpr = jax.make_jaxpr(value)(x)
    except (TypeError, ValueError) as error:
        raise ArgumentTypeError(f"An energy or cost fails for a complex state: {error}\n{remedy}") from error
    found = sorted({name for inner in with_inner(jaxpr.jaxpr) for name in _offenders(inner)})
    if found:
        raise ArgumentTypeError(
            f"An energy or cost is not holomorphic: it applies {', '.join(found)} to the state. {remedy}"
        )


def _offenders(jaxpr: Any) -> Iterator[str]:
    """Yield the names of primitives that are applied to complex numbers and are not holomorphic."""
    used: dict[Any, set[str]] = {}
    for equation in jaxpr.eqns:
        for v in equation.invars:
            used.setdefault(id(v), set()).add(equation.primitive.name)
    returned = set(map(id, jaxpr.outvars))
    for equation in jaxpr.eqns:
        operands = [getattr(v.aval, "dtype", None) for v in equation.invars]
        if equation.primitive.name in _NOT_HOLOMORPHIC and any(
            d is not None and jnp.issubdtype(d, jnp.complexfloating) for d in operands
        ):
            # JAX compares complex numbers by their real parts, and equal ones by their imaginary parts.
            compared = equation.primitive.name in ("real", "imag") and all(
                id(v) not in returned and used.get(id(v), set()) <= _COMPARISONS for v in equation.outvars
            )
            if not compared:
                yield equation.primitive.name
