"""Conditions on the whole state at one end: initial values (causal) and final values (anti-causal)."""

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._internal import _checks, _tree
from .._internal._errors import ArgumentError, refuse_if
from .._internal._root import root
from ..friction import Damped
from ..systems import Dissipative, Hamiltonian, SeparableHamiltonian
from ..systems._legendre import LegendreHamiltonian
from ._base import AbstractBoundary, End


class AbstractStateValue(AbstractBoundary):
    r"""A given state at one end, as $(q, p)$ or as coordinates and velocities."""

    q: eqx.AbstractVar[PyTree]
    p: eqx.AbstractVar[PyTree]
    v: eqx.AbstractVar[PyTree]

    def __check_init__(self) -> None:
        name, other = ("p", self.p) if self.v is None else ("v", self.v)
        _checks.same_shapes(type(self).__name__, "q", self.q, name, other)

    def structure(self) -> PyTree:
        return self.q

    def state(self, system: Hamiltonian | Dissipative, end: End) -> tuple[PyTree, PyTree]:
        """Return the given state $(q, p)$; velocities are converted to momenta by the energy at that end."""
        p = self.p if self.v is None else momentum(system, end, self.q, self.v)
        return self.q, p


def _given(name: str, q: PyTree, p: PyTree, v: PyTree) -> tuple[PyTree, PyTree, PyTree]:
    if (p is None) == (v is None):
        given = "neither" if p is None else "both"
        raise ArgumentError(
            f"{name} needs exactly one of `p` (momenta) and `v` (velocities), but got {given}. "
            "For a state at rest pass v=jax.tree.map(jnp.zeros_like, q)."
        )
    p = None if p is None else _checks.state(name, "p", p)
    v = None if v is None else _checks.state(name, "v", v)
    return _checks.state(name, "q", q), p, v


class InitialValue(AbstractStateValue):
    r"""Start the trajectory from a given state $(q_0, p_0)$, or from coordinates and velocities.

    With `v`, the momentum solves $\partial H/\partial p\,(t_0, q_0, p_0) = v$. It then depends on the kinetic
    parameters (a mass, say), and their gradient includes this dependence.

    Its dual is a `FinalValue`: the nudged trajectory ends where the free one ends.

    Args:
        q: initial coordinates, any PyTree of real arrays.
        p: initial momenta, of the same structure and shapes as `q`.
        v: initial velocities instead of `p`, of the same structure and shapes as `q`.

    Raises:
        ArgumentError: if both or neither of `p` and `v` are given, if structures or shapes differ, or if a leaf is
            complex.

    Example:
        ```python
        eg.InitialValue(q=jnp.zeros(3), p=jnp.ones(3))
        eg.InitialValue(q=jnp.zeros(3), v=jnp.ones(3))
        ```
    """

    q: PyTree
    p: PyTree
    v: PyTree

    def __init__(self, q: PyTree, p: PyTree = None, *, v: PyTree = None) -> None:
        self.q, self.p, self.v = _given("InitialValue", q, p, v)

    def rows(self, system: Hamiltonian, start: End, stop: End, like: PyTree) -> tuple[Array, Array]:
        b = _tree.flat(self.state(system, start))
        identity = jnp.eye(b.size, dtype=b.dtype)
        return jnp.concatenate([identity, jnp.zeros_like(identity)], 1), b


class FinalValue(AbstractStateValue):
    r"""End the trajectory in a given state $(q_N, p_N)$, or with coordinates and velocities: anti-causal inference.

    Its dual is an `InitialValue`.

    Args:
        q: final coordinates, any PyTree of real arrays.
        p: final momenta, of the same structure and shapes as `q`.
        v: final velocities instead of `p`, of the same structure and shapes as `q`.

    Raises:
        ArgumentError: as for `InitialValue`.

    Example:
        ```python
        eg.FinalValue(q=jnp.zeros(3), p=jnp.ones(3))
        ```
    """

    q: PyTree
    p: PyTree
    v: PyTree

    def __init__(self, q: PyTree, p: PyTree = None, *, v: PyTree = None) -> None:
        self.q, self.p, self.v = _given("FinalValue", q, p, v)

    def rows(self, system: Hamiltonian, start: End, stop: End, like: PyTree) -> tuple[Array, Array]:
        b = _tree.flat(self.state(system, stop))
        identity = jnp.eye(b.size, dtype=b.dtype)
        return jnp.concatenate([jnp.zeros_like(identity), identity], 1), b


def momentum(system: Hamiltonian | Dissipative, end: End, q: PyTree, v: PyTree) -> PyTree:
    r"""Return the momentum that belongs to the velocity `v`: the inverse of $v = \partial H / \partial p$.

    Explicit for a Lagrangian, $p = \partial L/\partial v$, and for a `Dissipative` system, $p = M v$; else by
    Newton's method on the energy, which must be convex in the momentum. Differentiable with respect to the system, the
    time, the coordinates and the velocity by the implicit function theorem.
    """
    if isinstance(system, Dissipative):
        return system.inertia(v)
    if isinstance(system, LegendreHamiltonian):
        return jax.grad(system.lagrangian, 2)(end.t, q, v, end.u)
    flat, unravel = jax.flatten_util.ravel_pytree(v)
    params, static = eqx.partition((system, end, q), eqx.is_inexact_array)

    def slope(p: Float[Array, " n"], params: PyTree) -> Float[Array, " n"]:
        system, end, q = eqx.combine(params, static)

        def energy(p: Float[Array, " n"]) -> Float[Array, ""]:
            if isinstance(system, SeparableHamiltonian | Damped):
                return system.kinetic(end.t, unravel(p))
            return system(end.t, q, unravel(p), end.u)

        return jax.grad(energy)(p)

    # Units, powers of two: the largest velocity, and the largest momentum that belongs to it near rest.
    fixed, given = _tree.fixed((params, flat))
    speed = _tree.power_of_two(jnp.max(jnp.abs(given), initial=0))
    pushed = jax.jvp(lambda p: slope(p, fixed), (jnp.zeros_like(flat),), (given / speed,))[1]
    unit = speed / _tree.power_of_two(jnp.max(jnp.abs(pushed), initial=0))

    def residual(x: Float[Array, " n"]) -> Float[Array, " n"]:
        return (slope(unit * x, params) - flat) / speed

    x = root(residual, given / speed, definite=True)
    left = jax.lax.stop_gradient(jnp.max(jnp.abs(residual(x)), initial=0))
    p = refuse_if(
        unit * x,
        ~(left <= float(jnp.finfo(flat.dtype).eps) ** 0.5),
        "v=...: no momentum has the given velocity: Newton's method did not converge (relative residual {}). The "
        "kinetic energy may be flat (a zero inverse mass), bounded in its velocity (relativistic), or not convex. Give "
        "the momentum with `p=` instead.",
        left,
    )
    return unravel(p)
