"""GLEP in Lagrangian variables and echoes in Hamiltonian ones give one gradient; another boundary gives another."""

import jax.numpy as jnp
import pytest

import echograd as eg


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
def test_the_comparison_can_fail():
    """Two discrete actions are two systems: their gradients differ by the order of the schemes, and it is seen."""
    from echograd._equivalence import _by_echo, _by_glep

    pendulums = eg.systems.PendulumChain()
    start = pendulums.start(n=2)
    echo = _by_echo(pendulums, start, 0.1, 6, eg.VelocityVerlet(), "running")
    glep = _by_glep(eg.legendre(pendulums), start, 0.1, 6, "midpoint", "running")
    off = jnp.abs(echo.length - glep.hamiltonian.length) / jnp.abs(echo.length)
    assert 1e-6 < off < 1e-1
