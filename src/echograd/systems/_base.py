"""What a mechanical system is: a scalar energy of time, coordinates, momenta and inputs."""

import abc
from typing import Any

import equinox as eqx
from jaxtyping import Array, Float, PyTree

Scalar = Float[Array, ""]


class AbstractHamiltonian(eqx.Module):
    r"""A system given by its energy $H(t, q, p, u; \theta)$.

    The array leaves of the module are its trainable parameters $\theta$. The equations of motion are
    $\dot q = \partial H / \partial p$ and $\dot p = -\partial H / \partial q$.
    """

    @abc.abstractmethod
    def __call__(self, t: Scalar, q: PyTree, p: PyTree, u: PyTree) -> Scalar:
        """Return the energy."""


class SeparableHamiltonian(AbstractHamiltonian):
    r"""A system whose energy splits into kinetic and potential parts.

    $$H(t, q, p, u; \theta) = T(t, p; \theta) + V(t, q, u; \theta)$$

    Write a subclass with the two methods; its array fields are the trainable parameters. Coordinates `q` and
    momenta `p` are PyTrees of real arrays of the same structure; the input `u` is any PyTree, or `None`.
    Energies must be scalars in one unit throughout: echograd never converts.

    For an echo to be possible the kinetic energy must be even in the momentum, $T(t, -p) = T(t, p)$: then the
    machine run forward from the momentum-flipped state retraces its path. This is measured, not assumed.

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
        """Return $V(t, q, u)$, the potential energy; the input `u` is what is held during one step."""

    def __call__(self, t: Scalar, q: PyTree, p: PyTree, u: Any) -> Scalar:
        """Return the energy $T + V$."""
        return self.kinetic(t, p) + self.potential(t, q, u)
