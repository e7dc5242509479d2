"""The Legendre transform, both ways: between Lagrangians and Hamiltonians."""

from typing import Any, overload

import jax
import jax.flatten_util
import jax.numpy as jnp
from jaxtyping import PyTree

from .._internal import _tree
from .._internal._errors import ArgumentTypeError
from .._internal._root import root
from ._base import Hamiltonian, Lagrangian, Scalar


class LegendreHamiltonian(Hamiltonian):
    r"""The Hamiltonian of a Lagrangian, $H(t, q, p, u) = p \cdot v - L(t, q, v, u)$ where $\partial L/\partial v = p$.

    Newton's method finds the velocity, in one iteration if $L$ is quadratic in it.
    """

    lagrangian: Lagrangian

    def __call__(self, t: Scalar, q: PyTree, p: PyTree, u: Any) -> Scalar:
        v = self.velocity(t, q, p, u)
        return _tree.dot(p, v) - self.lagrangian(t, q, v, u)

    def velocity(self, t: Scalar, q: PyTree, p: PyTree, u: Any) -> PyTree:
        r"""Return the velocity $v$ at which $\partial L/\partial v = p$."""
        return _inverse(lambda v: jax.grad(self.lagrangian, 2)(t, q, v, u), p)

    def mirror(self, q: PyTree) -> PyTree:
        return self.lagrangian.mirror(q)

    def mirror_input(self, u: Any) -> Any:
        return self.lagrangian.mirror_input(u)


class LegendreLagrangian(Lagrangian):
    r"""The Lagrangian of a Hamiltonian, $L(t, q, v, u) = p \cdot v - H(t, q, p, u)$ where $\partial H/\partial p = v$.

    Newton's method finds the momentum, in one iteration if $H$ is quadratic in it.
    """

    hamiltonian: Hamiltonian

    def __call__(self, t: Scalar, q: PyTree, v: PyTree, u: Any) -> Scalar:
        p = self.momentum(t, q, v, u)
        return _tree.dot(p, v) - self.hamiltonian(t, q, p, u)

    def momentum(self, t: Scalar, q: PyTree, v: PyTree, u: Any) -> PyTree:
        r"""Return the momentum $p$ at which $\partial H/\partial p = v$."""
        return _inverse(lambda p: jax.grad(self.hamiltonian, 2)(t, q, p, u), v)

    def mirror(self, q: PyTree) -> PyTree:
        return self.hamiltonian.mirror(q)

    def mirror_input(self, u: Any) -> Any:
        return self.hamiltonian.mirror_input(u)


@overload
def legendre(system: Lagrangian) -> Hamiltonian: ...
@overload
def legendre(system: Hamiltonian) -> Lagrangian: ...
def legendre(system: Lagrangian | Hamiltonian) -> Lagrangian | Hamiltonian:
    r"""Return the Hamiltonian of a Lagrangian, or the Lagrangian of a Hamiltonian.

    $$H = p \cdot v - L, \quad p = \partial L/\partial v; \qquad L = p \cdot v - H, \quad v = \partial H/\partial p$$

    Applied twice it returns the system itself. If no momentum belongs to a velocity, the energy is NaN, and `solve`
    reports it.

    Args:
        system: a `Lagrangian` or a `Hamiltonian`.

    Returns:
        The other one, with the same trainable leaves.

    Raises:
        ArgumentTypeError: for anything else.

    Source: H. Goldstein, *Classical Mechanics*, section 8.1.

    Example:
        ```python
        class Free(eg.Lagrangian):
            mass: Array

            def __call__(self, t, q, v, u):
                return 0.5 * self.mass * v**2

        energy = eg.legendre(Free(jnp.asarray(2.0)))
        energy(0.0, jnp.asarray(0.0), jnp.asarray(4.0), None)  # p² / 2m = 4
        ```
    """
    if isinstance(system, LegendreHamiltonian):
        return system.lagrangian
    if isinstance(system, LegendreLagrangian):
        return system.hamiltonian
    if isinstance(system, Lagrangian):
        return LegendreHamiltonian(system)
    if isinstance(system, Hamiltonian):
        return LegendreLagrangian(system)
    raise ArgumentTypeError(
        f"legendre: {type(system).__name__} is neither a Lagrangian nor a Hamiltonian; derive it from one."
    )


def _inverse(slope: Any, target: PyTree) -> PyTree:
    """Return the argument at which a gradient has the value `target`, by Newton's method from zero."""
    flat, unravel = jax.flatten_util.ravel_pytree(target)
    residual = lambda x: _tree.flat(slope(unravel(x))) - flat  # noqa: E731
    return unravel(root(residual, jnp.zeros_like(flat), terms=flat))
