"""Equilibrium propagation is what `Glep` becomes when nothing moves: one algorithm, finite nudges included."""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import echograd as eg
from cases import mixed, worst
from energies import coupled

pytestmark = [pytest.mark.float64_only, pytest.mark.least_effort]

STEPS, DT = 4, 0.3
SPAN = STEPS * DT


class Swinging(eg.SeparableHamiltonian):
    """L = ½ m v² - E(q, u; θ): an energy whose coordinates have been given masses."""

    energy: Any
    mass: Array

    def kinetic(self, t, p):
        return sum(jnp.sum(x**2) for x in jax.tree.leaves(p)) / (2 * self.mass)

    def potential(self, t, q, u):
        return self.energy(q, u)


def averaged(t, q, p):
    """The cost of a state, averaged over the path by the trapezoid rule that the action of velocity Verlet has."""
    end = (t < DT / 2) | (t > SPAN - DT / 2)
    return jnp.where(end, 0.5, 1.0) * mixed(q) / STEPS


CASE = coupled()
WANTED = CASE.energy, CASE.inputs
AT_REST = jax.tree.map(jnp.zeros_like, CASE.x0)


@functools.cache
def rest():
    return eg.equilibrium(CASE.energy, CASE.x0, CASE.inputs, solver=eg.Newton()).state


# As matrices on (q₀, p₀, q_N, p_N), so that one program serves them: p₀ = p_N = 0, and q_N = q₀, p_N = p₀.
ONE, NONE = np.eye(5), np.zeros((5, 5))
SELF_DUAL = {
    "free ends": np.block([[NONE, ONE, NONE, NONE], [NONE, NONE, NONE, ONE]]),
    "periodic": np.block([[ONE, NONE, -ONE, NONE], [NONE, ONE, NONE, -ONE]]),
}


def by_trajectory(condition, beta, shake=0.0):
    """Return a path under constant inputs, but for a shake that averages to nothing, and the gradients of its cost."""
    rows = jnp.asarray(SELF_DUAL[condition])
    boundary = eg.LinearBoundary(rows, jnp.zeros(10))
    return _by_trajectory(boundary, eg.Glep(eg.Symmetric(jnp.asarray(beta))), jnp.asarray(shake), (rest(), AT_REST))


@eqx.filter_jit
def _by_trajectory(boundary, gradient, shake, guess=None):
    factor = 1 + shake * jnp.cos(2 * jnp.pi * (jnp.arange(STEPS, dtype=float) + 0.5) / STEPS)

    def cost(arguments):
        (energy, inputs), mass = arguments
        held = jax.tree.map(lambda u: jnp.tensordot(factor, u, 0), inputs)
        how = {"integrator": eg.VelocityVerlet(), "gradient": gradient, "guess": guess}
        sol = eg.solve(Swinging(energy, mass), boundary, held, dt=DT, cost=averaged, **how)
        return sol.cost, sol

    (found, mass), sol = eqx.filter_grad(cost, has_aux=True)((WANTED, jnp.asarray(0.7)))
    moves = jnp.max(jnp.abs(jax.flatten_util.ravel_pytree(sol.p)[0]))
    return sol.q, moves, found, mass


@eqx.filter_jit
def by_relaxation(gradient):
    def cost(wanted):
        return mixed(eg.equilibrium(wanted[0], CASE.x0, wanted[1], solver=eg.Newton(), gradient=gradient).state)

    return eqx.filter_grad(cost)(WANTED)


@pytest.mark.parametrize("condition", SELF_DUAL)
def test_at_rest_between_ends_that_are_their_own_dual(condition):
    """The path is the state of rest, masses have no part in it, and the gradient is that of equilibrium propagation.

    Its bias too: it is one algorithm, not only one limit. The span takes its share of a nudge, L + βc = -(E - βc/T).
    """
    exact = by_relaxation(eg.Implicit())
    for beta in (0.3, 1.2):
        q, moves, found, mass = by_trajectory(condition, beta)
        expected = by_relaxation(eg.EP(eg.Symmetric(jnp.asarray(beta / SPAN))))
        assert max(worst(jax.tree.map(lambda x: x[k], q), rest()) for k in range(STEPS + 1)) < 1e-12  # noqa: B023
        assert max(moves, abs(mass)) < 1e-12
        assert worst(found, expected) < 1e-9
        assert worst(expected, exact) > 1e-4


def test_it_is_the_rest_and_the_ends_that_make_it_so():
    """Shaken, the path moves; from a start that is held, the nudged path does. Neither gradient is that of the rest."""
    expected = by_relaxation(eg.Implicit())
    _, moves, found, _ = by_trajectory("free ends", 1e-4, 3.0)
    assert moves > 0.1
    assert worst(found, expected) > 1e-3
    _, moves, found, _ = _by_trajectory(eg.InitialValue(rest(), AT_REST), eg.Echo(), jnp.zeros(()))
    assert moves < 1e-12
    assert worst(found, expected) > 1e-3
