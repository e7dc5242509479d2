"""GLEP in Lagrangian variables and echoes in Hamiltonian ones give one gradient; another boundary gives another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import echograd as eg
from echograd._equivalence import _by_echo, _by_glep

pytestmark = pytest.mark.least_effort

RUNNING, TERMINAL = jnp.asarray(True), jnp.asarray(False)


@pytest.mark.float64_only
def test_glep_under_the_dual_of_an_initial_value_is_hamiltonian_echo_learning():
    pendulums, charge = eg.systems.PendulumChain(), eg.systems.ChargedParticle()
    rows = eg.equivalence(
        {"pendulums": (pendulums, pendulums.start(n=2), 0.1), "charge": (charge, charge.start(), 0.1)}, steps=6
    )
    assert {(row.system, row.scheme, row.cost) for row in rows} == {
        *(("pendulums", scheme, cost) for scheme in ("midpoint", "trapezoid") for cost in ("running", "terminal")),
        *(("charge", "midpoint", cost) for cost in ("running", "terminal")),
    }
    assert max(row.difference for row in rows) < 1e-10
    assert min(row.norm for row in rows) > 1e-6


@pytest.mark.float64_only
def test_coordinates_of_any_structure():
    class Bodies(eg.Hamiltonian):
        mass: Array

        def __call__(self, t, q, p, u):
            apart = q["bodies"][0] - q["bodies"][1] + q["frame"]
            moving = jnp.sum(p["bodies"] ** 2, 1) / self.mass
            return 0.5 * (jnp.sum(moving) + p["frame"] ** 2 + jnp.sum(apart**2) ** 2)

    q = {"bodies": jnp.asarray([[0.3, -0.2], [0.5, 0.9]]), "frame": jnp.asarray(0.2)}
    system = Bodies(jnp.asarray([1.0, 2.0]))
    start = q, jax.tree.map(jnp.cos, q)
    echo = _by_echo(system, start, 0.1, 4, eg.ImplicitMidpoint(), TERMINAL)
    glep = _by_glep(eg.legendre(system), start, 0.1, 4, "midpoint", TERMINAL)
    np.testing.assert_allclose(glep.hamiltonian.mass, echo.mass, rtol=1e-10)
    assert np.all(np.abs(echo.mass) > 1e-6)


@pytest.mark.float64_only
def test_the_comparison_can_fail():
    """Two discrete actions are two systems: their gradients differ by the order of the schemes, and it is seen."""
    pendulums = eg.systems.PendulumChain()
    start = pendulums.start(n=2)
    echo = _by_echo(pendulums, start, 0.1, 6, eg.VelocityVerlet(), RUNNING)
    glep = _by_glep(eg.legendre(pendulums), start, 0.1, 6, "midpoint", RUNNING)
    off = jnp.abs(echo.length - glep.hamiltonian.length) / jnp.abs(echo.length)
    assert 1e-6 < off < 1e-1
