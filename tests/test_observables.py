"""Energies and velocities at the kept nodes of a trajectory."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import echograd as eg
from cases import solve

pytestmark = pytest.mark.least_effort

X64 = jax.config.jax_enable_x64
CLOSE = 1e-12 if X64 else 1e-5
STEPS, DT = 10, 0.05


class Pendulum(eg.Lagrangian):
    """With inertia that changes in time and a drive on the velocity: neither momentum nor energy are the usual ones."""

    length: Array

    def __call__(self, t, q, v, u):
        return 0.5 * (1 + t) * (self.length * v) ** 2 + jnp.cos(q) + v * u


PENDULUM = Pendulum(jnp.asarray(1.5))
START = eg.InitialValue(jnp.asarray(0.4), v=jnp.asarray(-0.7))
DRIVE = jnp.sin(jnp.arange(float(STEPS)))
# The step whose input belongs to each node.
HELD = np.minimum(np.arange(STEPS + 1), STEPS - 1)


def run(save=None, system=PENDULUM):
    return eg.solve(system, START, DRIVE, dt=DT, save=save)


@pytest.fixture(scope="module")
def sol():
    return run()


def closed_form(sol):
    u, mass = DRIVE[HELD], (1 + sol.t) * PENDULUM.length**2
    v = (sol.p - u) / mass
    return v, 0.5 * mass * v**2 - jnp.cos(sol.q)


def test_energy_and_velocity_of_a_lagrangian_have_their_closed_form(sol):
    v, energy = closed_form(sol)
    assert jnp.max(jnp.abs(eg.velocity(PENDULUM, sol, DRIVE) - v)) < CLOSE
    assert jnp.max(jnp.abs(eg.energy(PENDULUM, sol, DRIVE) - energy)) < CLOSE
    assert jnp.abs(v[0] - START.v) < CLOSE
    # The drive is a part of the momentum, so other inputs give other velocities.
    assert jnp.max(jnp.abs(eg.velocity(PENDULUM, sol, DRIVE[::-1]) - v)) > 0.1


@pytest.mark.parametrize(
    ("save", "nodes"),
    [
        (eg.EveryNode(5), np.array([0, 5, 10])),
        (eg.EveryNode(4), np.array([0, 4, 8])),
        (eg.FinalNode(), np.array(10)),
        (lambda t, q, p: q * p, np.array(10)),
    ],
    ids=["every fifth", "every fourth", "final", "function"],
)
def test_kept_nodes_meet_their_inputs(sol, save, nodes):
    kept = run(save)
    for read in (eg.energy, eg.velocity):
        found = read(PENDULUM, kept, DRIVE)
        assert found.shape == nodes.shape
        assert jnp.max(jnp.abs(found - read(PENDULUM, sol, DRIVE)[nodes])) < CLOSE


def test_a_kepler_orbit_keeps_its_energy_and_moves_at_its_velocity():
    kepler = eg.systems.Kepler()
    q, p = kepler.start()
    sol = eg.solve(kepler, eg.InitialValue(q, p), dt=0.01, steps=200, integrator=eg.Yoshida(6))
    energy = jax.jit(eg.energy)(kepler, sol)
    expected = 0.5 * jnp.sum(p**2) - kepler.attraction / jnp.linalg.norm(q)
    assert energy.shape == (201,)
    assert jnp.max(jnp.abs(energy - expected)) < (1e-7 if X64 else 1e-4)
    assert jnp.max(jnp.abs(eg.velocity(kepler, sol) - sol.p)) < CLOSE  # the body has unit mass


def test_states_are_trees_and_waves_have_energies():
    lattice = eg.systems.KerrLattice()
    q, p = lattice.start()
    sol = eg.solve(lattice, eg.InitialValue(q, p), dt=0.01, steps=20)
    energy = eg.energy(lattice, sol)
    assert jnp.max(jnp.abs(energy - energy[0])) < 1e-2 * jnp.abs(energy[0])
    assert jax.tree.structure(eg.velocity(lattice, sol)) == jax.tree.structure(sol.q)


@pytest.mark.float64_only
def test_they_are_differentiated_through_the_trajectory():
    def loss(system, drive, gradient):
        sol = solve(system, START, drive, dt=DT, gradient=gradient)
        return jnp.sum(eg.energy(system, sol, drive) ** 2) + jnp.sum(eg.velocity(system, sol, drive) ** 2)

    glep, backprop = (jax.grad(loss, (0, 1))(PENDULUM, DRIVE, g) for g in (eg.Glep(), eg.Backprop()))
    for a, b in zip(jax.tree.leaves(glep), jax.tree.leaves(backprop), strict=True):
        assert jnp.max(jnp.abs(a - b)) < 1e-9 * jnp.max(jnp.abs(b))


@pytest.mark.float64_only
def test_a_batch_is_mapped_over(sol):
    lengths = jnp.asarray([1.5, 2.0])
    systems = jax.vmap(Pendulum)(lengths)
    sols = eqx.filter_vmap(lambda system: run(system=system))(systems)
    energies = jax.vmap(lambda system, sol: eg.energy(system, sol, DRIVE))(systems, sols)
    assert energies.shape == (2, STEPS + 1)
    assert jnp.max(jnp.abs(energies[0] - eg.energy(PENDULUM, sol, DRIVE))) < CLOSE
    with pytest.raises(ValueError, match=r"shape \(2, 11\).*jax\.vmap"):
        eg.energy(PENDULUM, sols, DRIVE)


@pytest.mark.float64_only
@pytest.mark.parametrize("read", [eg.energy, eg.velocity])
def test_wrong_use_is_told(sol, read):
    damped = eg.LinearDamped(jnp.ones(1), jnp.ones(1), jnp.ones(1))
    with pytest.raises(TypeError, match="given by its forces"):
        read(damped, sol)
    with pytest.raises(TypeError, match="Pass the one that `solve` ran"):
        read(jnp.cos, sol)
    with pytest.raises(TypeError, match="is not a trajectory"):
        read(PENDULUM, (sol.q, sol.p))
    with pytest.raises(ValueError, match="11 nodes, one every 1 steps, and the inputs have 11 steps"):
        read(PENDULUM, sol, jnp.zeros(11))
    with pytest.raises(ValueError, match="no common leading axis"):
        read(PENDULUM, sol, jnp.zeros(()))
