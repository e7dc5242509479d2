"""The base class of friction: reversible moves of the momenta in the middle of a step."""

import abc
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from ..systems import SeparableHamiltonian


class Instant(NamedTuple):
    """What is frozen while friction acts.

    Attributes:
        k: the step.
        h: its length.
        t: the time in its middle.
        q: the coordinates.
        u: the input.
        exact: a rounding of terms `(x, i) -> x` to the grid of momentum array `i`, so that their sum is exact and does
            not depend on its order; the identity in floats.

    Example: see `friction.AbstractFriction`.
    """

    k: Int[Array, ""]
    h: Float[Array, ""]
    t: Float[Array, ""]
    q: PyTree
    u: Any
    exact: Callable[[Array, int], Array] = lambda x, _: x


class Shear(NamedTuple):
    r"""The move $p \leftarrow p + a$, undone by subtraction.

    `push(p)` returns $a$ in the tree of the momenta, with `None` for those that stay. It must not depend on momenta
    that it changes: `push(p + push(p)) == push(p)`.

    Example: see `friction.AbstractFriction`.
    """

    push: Callable[[PyTree], PyTree]


class Scaling(NamedTuple):
    r"""The move $p \leftarrow p - \varepsilon p$.

    `lost(p)` returns $\varepsilon < 1$ in the tree of the momenta, with `None` for those that stay. It must not depend
    on momenta that it changes.

    Example: see `friction.AbstractFriction`.
    """

    lost: Callable[[PyTree], PyTree]


class Decrease(NamedTuple):
    r"""The move $p \leftarrow p - \ell(p)$, number by number.

    `loss(p)` returns $\ell$ in the tree of the momenta; $p - \ell(p)$ must increase with $p$.

    Example: see `friction.AbstractFriction`.
    """

    loss: Callable[[PyTree], PyTree]


Move = Shear | Scaling | Decrease


class AbstractFriction(eqx.Module):
    """What friction does to the momenta. Its arrays are trainable parameters of the system.

    Write a subclass with `over_one_step`, whose result lists the moves of a step.

    Example:
        ```python
        class Brake(eg.friction.AbstractAction):  # one step: p <- p - lost * p
            lost: Array

            def moves(self, now):
                return (eg.friction.Scaling(lambda p: self.lost * jnp.cos(now.t) ** 2),)

        class PulsedBrake(eg.friction.AbstractFriction):
            rate: Array

            def over_one_step(self, system, h, p):
                return Brake(-jnp.expm1(-self.rate * h) * jnp.ones_like(p))

        chain = eg.systems.FPUTChain()
        damped = eg.Damped(chain, PulsedBrake(jnp.asarray(0.3)))
        sol = eg.solve(damped, eg.InitialValue(*chain.start(n=8)), dt=0.1, steps=20)
        ```
    """

    def extended(self, system: SeparableHamiltonian) -> SeparableHamiltonian:
        """Return the system together with the coordinates of the friction itself, if it has any."""
        return system

    @abc.abstractmethod
    def over_one_step(self, system: SeparableHamiltonian, h: Float[Array, ""], p: PyTree) -> "AbstractAction":
        """Return what this friction does in a step of length `h`, for momenta shaped like `p`.

        Called once for a run: numbers that do not change from step to step are computed here.
        """


class AbstractAction(eqx.Module):
    """What friction does in one step.

    Example: see `friction.AbstractFriction`.
    """

    @abc.abstractmethod
    def moves(self, now: Instant) -> tuple[Move, ...]:
        """Return the moves of the momenta, in their order."""

    def cut(self, p: PyTree) -> PyTree:
        """Return the part of the momenta that the moves act on, and of which bits are recorded; by default all."""
        return p

    def pasted(self, p: PyTree, part: PyTree) -> PyTree:
        """Return the momenta with this part replaced."""
        return part

    def strongest(self) -> Float[Array, ""]:
        r"""Return the largest $\varepsilon$ of a `Scaling`, or 1/2 if it is unknown before the run."""
        return jnp.asarray(0.5)
