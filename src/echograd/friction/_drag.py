"""Friction that is not in proportion to the momentum."""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Float, PyTree

from .._internal import _checks, _tree
from .._internal._errors import ArgumentError
from ..systems import SeparableHamiltonian
from ._moves import AbstractAction, AbstractFriction, Decrease, Instant, Move


class Drag(AbstractFriction):
    r"""Nonlinear drag on every momentum by itself: $\dot p_i = -a_i(t, q, p_i, u)$.

    A step takes $p \leftarrow p - h\, a(p - \tfrac h2 a(p))$, which is of second order. It must increase with $p$: the
    step must resolve the drag, $h\, \partial a/\partial p < 1$.

    Args:
        law: function `(t, q, p, u) -> a` in the tree of the momenta, in units of force. Every number of $a$ depends on
            the momentum in the same place only. Pass an `equinox.Module` to have trainable parameters.

    Raises:
        ArgumentTypeError: if the law is not a function.
        ArgumentError: if it returns other shapes than those of the momenta.

    Source: E. Hairer, C. Lubich, G. Wanner, *Geometric Numerical Integration*, 2nd ed. (2006), eq. II.1.2.

    Example:
        ```python
        class Quadratic(eqx.Module):
            coefficient: Array

            def __call__(self, t, q, p, u):
                return self.coefficient * jnp.abs(p) * p

        damped = eg.Damped(system, eg.friction.Drag(Quadratic(jnp.asarray(0.1))))
        ```
    """

    law: Callable[[Any, PyTree, PyTree, Any], PyTree]

    def __init__(self, law: Callable[[Any, PyTree, PyTree, Any], PyTree]) -> None:
        self.law = _checks.function("Drag", "law", law, "(t, q, p, u) -> drag force")

    def over_one_step(self, system: SeparableHamiltonian, h: Float[Array, ""], p: PyTree) -> "DragOverStep":
        return DragOverStep(self.law)


class DragOverStep(AbstractAction):
    """One step of a drag law."""

    law: Callable[[Any, PyTree, PyTree, Any], PyTree]

    def moves(self, now: Instant) -> tuple[Move, ...]:
        def drag(p: PyTree) -> PyTree:
            found = self.law(now.t, now.q, p, now.u)
            if jax.tree.map(lambda x: getattr(x, "shape", ()), found) != jax.tree.map(lambda x: x.shape, p):
                raise ArgumentError(
                    f"Drag: law(t, q, p, u) must return a tree like the momenta, {_checks.shown(p)}, and returned "
                    f"{_checks.shown(found)}."
                )
            return found

        def loss(p: PyTree) -> PyTree:
            return _tree.isolated(over_step, p)

        def over_step(p: PyTree) -> PyTree:
            middle = _tree.subtract(p, _tree.scale(0.5 * now.h, drag(p)))
            return _tree.scale(now.h, drag(middle))

        return (Decrease(loss),)
