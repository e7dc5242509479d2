"""Derivatives of energies at a state, which a complex nudge makes complex."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from . import _tree
from ._errors import ArgumentTypeError
from ._jaxpr import with_inner

# On a complex number none of these is the restriction of a differentiable function of a complex variable.
_NOT_HOLOMORPHIC = {"abs", "real", "imag", "conj", "sign", "is_finite", "max", "min", "clamp", "sort"} | {
    *("reduce_max", "reduce_min", "argmax", "argmin", "cummax", "cummin"),
}
# These are true or false. What chooses between holomorphic functions by them is one, off the line where they change.
_COMPARISONS = {"lt", "le", "gt", "ge", "eq", "ne"}


def derivatives(action: Callable[[Any, Any], Array], wanted: PyTree, x: PyTree) -> tuple[PyTree, PyTree]:
    r"""Return $\partial A/\partial(\text{wanted})$ and $\partial A/\partial x$ of a scalar `action(wanted, x)`.

    Where `x` is complex the action is taken for a holomorphic function of it, with the real arrays `wanted` as its
    parameters; both derivatives are then complex, and mean what they would for a real `x`.

    Raises:
        TypeError: if `x` is complex and the action is not written as a holomorphic function of it, or `wanted` has
            complex arrays.
    """
    if not _is_complex(x):
        return jax.grad(action, (0, 1))(wanted, x)

    if _is_complex(wanted):
        raise ArgumentTypeError(
            "Holomorphic() differentiates by real parameters and inputs only, and one of these is complex: its nudges "
            "would be told apart from its imaginary part by nothing. Use Richardson(beta, order), which nudges with "
            "real numbers, or Infinitesimal(); or keep real and imaginary part as two real arrays."
        )
    dtype = jnp.result_type(*(leaf.dtype for leaf in jax.tree.leaves(x)))

    def value(wanted: Any, x: Any) -> Array:
        # Real parameters meet the complex state: the one promotion that is meant, also where others are forbidden.
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

    The other derivative would be left out of the compiled program in any case, but tracing it takes long.
    """
    if _is_complex(x):
        return derivatives(action, wanted, x)[0]
    return jax.grad(action)(wanted, x) if jax.tree.leaves(wanted) else wanted


def no_reading(wanted: PyTree, x: PyTree) -> PyTree:
    """Return the zero that readings of `wanted` at `x` add up from."""
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
        raise ArgumentTypeError(f"An energy or cost refuses a complex state: {error}\n{remedy}") from error
    found = sorted({name for inner in with_inner(jaxpr.jaxpr) for name in _offenders(inner)})
    if found:
        raise ArgumentTypeError(
            f"An energy or cost is not holomorphic: it takes {', '.join(found)} of the state. {remedy}"
        )


def _offenders(jaxpr: Any) -> Iterator[str]:
    """Yield the names of the primitives that act on complex numbers as no holomorphic function does."""
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
            # Complex numbers are compared by their real parts, and by their imaginary ones where those are alike.
            compared = equation.primitive.name in ("real", "imag") and all(
                id(v) not in returned and used.get(id(v), set()) <= _COMPARISONS for v in equation.outvars
            )
            if not compared:
                yield equation.primitive.name
