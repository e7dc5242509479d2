"""Base classes of mechanical systems: a scalar energy or Lagrangian of time, state and inputs."""

import abc
import dataclasses
from typing import Any

import equinox as eqx
from jaxtyping import Array, Float, PyTree

from .._internal import _checks

Scalar = Float[Array, ""]


class AbstractSystem(eqx.Module):
    r"""A mechanical system. The array leaves of the module are its trainable parameters $\theta$.

    A system defines its time reversal. It maps coordinates to $\Pi q$, inputs to $\Pi_u u$, and velocities and momenta
    to $-\Pi v$ and $-\Pi p$, with an orthogonal involution $\Pi$, the *mirror*: by default the identity. A charge in a
    magnetic field, for example, runs back only along the mirror image of its path.

    Example: see `SeparableHamiltonian`.
    """

    def __check_init__(self) -> None:
        # Fields made by `parameter` carry the sign that they must have.
        for field in dataclasses.fields(self):
            if "sign" in field.metadata:
                _checks.signed(type(self).__name__, field.name, getattr(self, field.name), field.metadata["sign"])

    def mirror(self, q: PyTree) -> PyTree:
        r"""Return $\Pi q$: linear, orthogonal and its own inverse. The same $\Pi$ acts on momenta."""
        return q

    def mirror_input(self, u: Any) -> Any:
        r"""Return the mirrored input $\Pi_u u$; its own inverse."""
        return u

    def admitted(self, z: Any, start: Scalar, stop: Scalar) -> Any:
        """Return `z`, or raise at run time if the system cannot run from time `start` to time `stop`."""
        return z


class Hamiltonian(AbstractSystem):
    r"""A system given by its energy $H(t, q, p, u; \theta)$.

    Write a subclass with `__call__`; its array fields are the trainable parameters. The equations of motion are
    $\dot q = \partial H / \partial p$ and $\dot p = -\partial H / \partial q$. If the energy splits into $T(t, p)$
    and $V(t, q, u)$, derive from `SeparableHamiltonian`, which has explicit integrators.

    An echo is possible if $H(t, \Pi q, -\Pi p, \Pi_u u) = H(t, q, p, u)$; see `mirror`. Every echo measures this.

    Example:
        ```python
        class ChargeInField(eg.Hamiltonian):
            field: Array

            def __call__(self, t, q, p, u):
                potential = 0.5 * self.field * jnp.array([-q[1], q[0]])
                return 0.5 * jnp.sum((p - potential) ** 2) + jnp.sum(q**4)

            def mirror(self, q):
                return q * jnp.array([1.0, -1.0])
        ```
    """

    @abc.abstractmethod
    def __call__(self, t: Scalar, q: PyTree, p: PyTree, u: Any) -> Scalar:
        """Return the energy. The input `u` is constant during one step."""


class SeparableHamiltonian(Hamiltonian):
    r"""A system whose energy splits into kinetic and potential parts.

    $$H(t, q, p, u; \theta) = T(t, p; \theta) + V(t, q, u; \theta)$$

    Write a subclass with the two methods; its array fields are the trainable parameters. Coordinates `q` and
    momenta `p` are PyTrees of real arrays of the same structure; the input `u` is any PyTree, or `None`.
    Energies must be scalars in consistent units: echograd never converts.

    An echo needs a kinetic energy that is even in the momentum, $T(t, -p) = T(t, p)$: then the system, run forward
    from the momentum-flipped state, retraces its path. Every echo measures this.

    Example:
        ```python
        class Chain(eg.SeparableHamiltonian):
            stiffness: Array

            def kinetic(self, t, p):
                return 0.5 * jnp.sum(p**2)

            def potential(self, t, q, u):
                return 0.5 * jnp.sum(self.stiffness * jnp.diff(q) ** 2) - u * q[0]
        ```
    """

    @abc.abstractmethod
    def kinetic(self, t: Scalar, p: PyTree) -> Scalar:
        """Return $T(t, p)$, the kinetic energy."""

    @abc.abstractmethod
    def potential(self, t: Scalar, q: PyTree, u: Any) -> Scalar:
        """Return $V(t, q, u)$, the potential energy; the input `u` is constant during one step."""

    def __call__(self, t: Scalar, q: PyTree, p: PyTree, u: Any) -> Scalar:
        """Return the energy $T + V$."""
        return self.kinetic(t, p) + self.potential(t, q, u)


class Lagrangian(AbstractSystem):
    r"""A system given by its Lagrangian $L(t, q, v, u; \theta)$.

    Write a subclass with `__call__`; its array fields are the trainable parameters. The equations of motion are those
    of Euler and Lagrange, $\frac{d}{dt} \frac{\partial L}{\partial v} = \frac{\partial L}{\partial q}$. `solve` takes
    it directly; the trajectory has coordinates and the momenta $p = \partial L/\partial v$. The mass matrix
    $\partial^2 L/\partial v^2$ must not be singular.

    Example:
        ```python
        class Pendulum(eg.Lagrangian):
            length: Array

            def __call__(self, t, q, v, u):
                return 0.5 * (self.length * v) ** 2 + 9.81 * self.length * jnp.cos(q)
        ```
    """

    @abc.abstractmethod
    def __call__(self, t: Scalar, q: PyTree, v: PyTree, u: Any) -> Scalar:
        """Return the Lagrangian; the input `u` is constant during one step."""
