"""Momenta that belong to velocities, in any units, and energies that follow their constants."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import echograd as eg

pytestmark = [pytest.mark.fast, pytest.mark.least_effort]

SPRING = 1.0


class Body(eg.SeparableHamiltonian):
    mass: jax.Array

    def kinetic(self, t, p):
        return jnp.sum(p**2 / (2 * self.mass))

    def potential(self, t, q, u):
        return 0.5 * SPRING * jnp.sum(q**2)


class Fast(Body):
    """A body that cannot be faster than 1."""

    def kinetic(self, t, p):
        return jnp.sum(jnp.sqrt(self.mass**2 + p**2))


@pytest.mark.parametrize(("mass", "v"), [(6.6e-26, 1e-9), (6.6e-26, 300.0), (1e20, 1e-9), (2.0, 0.0)])
def test_the_momentum_of_a_velocity(mass, v):
    start = eg.InitialValue(jnp.ones(2), v=jnp.asarray([v, -v / 3]))
    run = eg.solve(Body(jnp.asarray(mass)), start, dt=1e-3 * mass**0.5, steps=1, save=lambda t, q, p: p)
    expected = mass * np.asarray([v, -v / 3])
    np.testing.assert_allclose(run.saved[0], expected, rtol=1e-6)


def test_a_velocity_that_no_momentum_has_is_refused():
    start = eg.InitialValue(jnp.zeros(1), v=jnp.full(1, 1.5))
    with pytest.raises(RuntimeError, match=r"no momentum has the given velocity.*relative residual \S+\)"):
        eg.solve(Fast(jnp.asarray(1.0)), start, dt=0.1, steps=1)


def test_the_energy_follows_a_constant_that_changes(monkeypatch):
    system = Body(jnp.asarray(1.0))
    run = eg.solve(system, eg.InitialValue(jnp.ones(1), jnp.zeros(1)), dt=0.1, steps=2)
    before = eg.energy(system, run)[0]
    monkeypatch.setitem(globals(), "SPRING", 4.0)
    np.testing.assert_allclose(eg.energy(system, run)[0], 4 * before, rtol=1e-6)
