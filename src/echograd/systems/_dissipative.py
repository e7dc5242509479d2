"""Systems with general damping, defined by their forces."""

import abc
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._internal import _checks
from .._internal._errors import ArgumentError
from ._base import AbstractSystem, Scalar
from ._parameter import converted

Matrix = Float[Array, "n n"] | Float[Array, " n"] | Float[Array, ""]


class Dissipative(AbstractSystem):
    r"""A system defined by its forces, with any damping: $M \ddot q + D \dot q = F(t, q, u; \theta)$.

    Write a subclass with `inertia`, `friction` and `force`; its array fields are the trainable parameters. Momenta are
    $p = M \dot q$. With $M = 0$ the momenta are zero and the system is overdamped, of first order: in a network of
    resistors and capacitors, $D$ holds the capacitances and $F$ the currents.

    It has no energy and no action, so it has no echo. If friction and force are linear and reciprocal,
    `Reciprocal()` is exact on the same lossy machine. Reciprocal means $M = M^{\sf T}$, $D = D^{\sf T}$ and
    $K = K^{\sf T}$ with $K = -\partial F/\partial q$ at every time, or, with a known invertible matrix $S$ (see
    `twisted`), $S M^{\sf T} S^{-1} = M$, likewise for $D$ and $K$. `diagnose` measures this.

    Source: "Unifying Physical Backpropagation" (Boesch, Gediz, Tureci), sections 3 to 7.

    Example:
        ```python
        capacitance, incidence = jnp.ones(2), jnp.array([[1.0, 0.0], [-1.0, 1.0]])

        class Resistors(eg.Dissipative):
            conductance: Array

            def inertia(self, v):
                return jnp.zeros_like(v)

            def friction(self, v):
                return capacitance * v

            def force(self, t, q, u):
                return u - incidence.T @ (self.conductance * (incidence @ q))
        ```
    """

    @abc.abstractmethod
    def inertia(self, v: PyTree) -> PyTree:
        """Return the momentum $M v$, linear in the velocity and of its shape."""

    @abc.abstractmethod
    def friction(self, v: PyTree) -> PyTree:
        """Return the damping force $D v$, of the shape of the velocity."""

    @abc.abstractmethod
    def force(self, t: Scalar, q: PyTree, u: Any) -> PyTree:
        """Return all other forces, of the shape of the coordinates; the input `u` is constant during one step."""

    def twisted(self, q: PyTree) -> PyTree:
        r"""Return $S q$: linear and invertible, by default the identity. It is not trained."""
        return q


class LinearDamped(Dissipative):
    r"""A linear damped system in matrices: $M \ddot q + D \dot q + K(t)\, q = B u$.

    Each matrix may be a number (times the identity), a vector (the diagonal) or a matrix. All are trainable. The
    gradient has an entry for every element, so a gradient step can break the symmetry of a matrix, which `Reciprocal`
    needs. To keep it, derive from `Dissipative` with the elements of the network as parameters.

    Args:
        mass: $M$, or `None` for an overdamped system of first order, $D \dot q + K q = B u$.
        damping: $D$; it may also be gain.
        stiffness: $K$, or a function of the time that returns it (an `equinox.Module` to have trainable parameters).
        drive: $B$, with one row for every coordinate; `None` takes the input as the force itself.
        twist: the matrix $S$ of a twisted reciprocity, $S K^{\sf T} S^{-1} = K$ and the same for $M$ and $D$; `None`
            for symmetric matrices. A constant.

    Raises:
        ArgumentError: if the shapes are inconsistent.

    Source: "Unifying Physical Backpropagation" (Boesch, Gediz, Tureci), theorems 6.1, 7.1 and 10.1.

    Example:
        ```python
        network = eg.LinearDamped(mass=jnp.eye(2), damping=0.3 * jnp.eye(2), stiffness=jnp.diag(jnp.array([1.0, 2.0])))
        rest, forces = eg.InitialValue(jnp.zeros(2), v=jnp.zeros(2)), jnp.ones((40, 2))
        sol = eg.solve(network, rest, forces, dt=0.05)  # gradient=eg.Reciprocal() by default
        ```
    """

    mass: Any
    damping: Any
    stiffness: Any
    drive: Any
    twist: Any

    def __init__(
        self,
        mass: Matrix | None,
        damping: Matrix,
        stiffness: Matrix | Callable[[Scalar], Matrix],
        drive: Float[Array, "n inputs"] | None = None,
        twist: Float[Array, "n n"] | None = None,
    ) -> None:
        def real(name: str, x: Any) -> Array:
            return _checks.signed("LinearDamped", name, converted(x))

        self.mass = None if mass is None else real("mass", mass)
        self.damping = real("damping", damping)
        self.stiffness = stiffness if callable(stiffness) else real("stiffness", stiffness)
        self.drive = None if drive is None else real("drive", drive)
        self.twist = None if twist is None else real("twist", twist)

    def __check_init__(self) -> None:
        given = {"mass": self.mass, "damping": self.damping, "stiffness": self.stiffness, "twist": self.twist}
        given = {name: x for name, x in given.items() if x is not None and not callable(x)}
        for name, x in given.items():
            if x.ndim > 2 or (x.ndim == 2 and x.shape[0] != x.shape[1]):
                raise ArgumentError(
                    f"LinearDamped: {name} has shape {x.shape}. Give a number, a vector (the diagonal) or a square "
                    "matrix."
                )
        sizes = {name: x.shape[0] for name, x in given.items() if x.ndim}
        if self.drive is not None:
            if self.drive.ndim != 2:
                raise ArgumentError(
                    f"LinearDamped: drive has shape {self.drive.shape}; it is a matrix with one row per coordinate."
                )
            sizes["drive"] = self.drive.shape[0]
        if len(set(sizes.values())) > 1:
            raise ArgumentError(
                "LinearDamped: these disagree on the number of coordinates: "
                + ", ".join(f"{name} has {n}" for name, n in sizes.items())
                + "."
            )

    def inertia(self, v: Float[Array, " n"]) -> Float[Array, " n"]:
        return jnp.zeros_like(v) if self.mass is None else _applied(self.mass, v)

    def friction(self, v: Float[Array, " n"]) -> Float[Array, " n"]:
        return _applied(self.damping, v)

    def force(self, t: Scalar, q: Float[Array, " n"], u: Any) -> Float[Array, " n"]:
        stiffness = self.stiffness(t) if callable(self.stiffness) else self.stiffness
        force = -_applied(stiffness, q)
        if u is None:
            return force
        return force + (u if self.drive is None else self.drive @ u)

    def twisted(self, q: Float[Array, " n"]) -> Float[Array, " n"]:
        return q if self.twist is None else _applied(self.twist, q)


def _applied(matrix: Any, x: Float[Array, " n"]) -> Float[Array, " n"]:
    return matrix @ x if matrix.ndim == 2 else matrix * x
