"""GLEP in Lagrangian variables and echoes in Hamiltonian ones give the same gradient."""

import jax
import jax.numpy as jnp
import pytest
from jaxtyping import Array

import echograd as eg

pytestmark = pytest.mark.least_effort


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
    assert rows.worst == max(row.difference for row in rows[:])
    assert str(rows).splitlines()[2].split()[:4] == ["pendulums", "midpoint", "running", "(RHEL)"]
    assert len(str(rows).splitlines()) == 2 + len(rows)


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
    rows = eg.equivalence({"bodies": (system, start, 0.1)}, steps=4)
    assert {(row.scheme, row.parameter) for row in rows} == {("midpoint", "mass")}
    assert max(row.difference for row in rows) < 1e-10
    assert min(row.norm for row in rows) > 1e-6


@pytest.mark.float64_only
def test_the_comparison_can_fail():
    """A system whose parts do not add up to its energy is two systems, and the rows show it."""

    class Contradictory(eg.SeparableHamiltonian):
        stiffness: Array

        def kinetic(self, t, p):
            return 0.5 * jnp.sum(p**2)

        def potential(self, t, q, u):
            return 0.5 * self.stiffness * jnp.sum(q**2)

        def __call__(self, t, q, p, u):
            return self.kinetic(t, p) + 1.1 * self.potential(t, q, u)

    start = jnp.asarray([0.3, -0.2]), jnp.asarray([0.1, 0.4])
    rows = eg.equivalence({"oscillators": (Contradictory(jnp.asarray(2.0)), start, 0.1)}, steps=6)
    assert min(row.difference for row in rows if row.scheme == "trapezoid") > 1e-3
    assert max(row.difference for row in rows if row.scheme == "midpoint") < 1e-10
