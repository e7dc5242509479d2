"""A driven chain with friction, and one step of it in plain JAX."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from echograd.systems import FPUTChain, SeparableHamiltonian

STEP = 0.05

State = tuple[Array, Array]


class Driven(SeparableHamiltonian):
    r"""A chain under the force $a_i \cos t$."""

    chain: FPUTChain
    force: Float[Array, " n"]

    def kinetic(self, t: Any, p: Float[Array, " n"]) -> Float[Array, ""]:
        return self.chain.kinetic(t, p)

    def potential(self, t: Any, q: Float[Array, " n"], u: Any) -> Float[Array, ""]:
        return self.chain.potential(t, q, u) - jnp.cos(t) * (self.force @ q)


def step(system: SeparableHamiltonian, kept: Array, t: Any, z: State, noise: Any = 0.0) -> State:
    """Return the state after a leapfrog step from time `t`; friction and noise act in the middle of the kick."""
    q, p = z
    q = q + 0.5 * STEP * _velocity(system, t, p)
    push = -0.5 * STEP * _slope(system, t, q)
    p = kept * (p + push) + noise + push
    return q + 0.5 * STEP * _velocity(system, t, p), p


def step_back(system: SeparableHamiltonian, kept: Array, t: Any, z: State, noise: Any = 0.0) -> State:
    """Undo `step` in floats."""
    q, p = z
    q = q - 0.5 * STEP * _velocity(system, t, p)
    push = -0.5 * STEP * _slope(system, t, q)
    p = (p - push - noise) / kept - push
    return q - 0.5 * STEP * _velocity(system, t, p), p


def _velocity(system: SeparableHamiltonian, t: Any, p: Array) -> Array:
    return jax.grad(lambda p: system.kinetic(t, p))(p)


def _slope(system: SeparableHamiltonian, t: Any, q: Array) -> Array:
    return jax.grad(lambda q: system.potential(t + 0.5 * STEP, q, None))(q)
