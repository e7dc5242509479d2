"""Units do not matter: the same problem in other units gives the same relative gradient, bit for bit."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import echograd as eg

STEPS = 24
FAR = 60 if jax.config.jax_enable_x64 else 12


class Units(eqx.Module):
    """Units of coordinates, momenta and time, powers of two; the unit of energy follows."""

    q: jax.Array
    p: jax.Array
    t: jax.Array

    @property
    def energy(self):
        return self.q * self.p / self.t


class Separable(eg.SeparableHamiltonian):
    """A separable system in other units."""

    system: eg.SeparableHamiltonian
    units: Units

    def kinetic(self, t, p):
        return self.units.energy * self.system.kinetic(t / self.units.t, p / self.units.p)

    def potential(self, t, q, u):
        return self.units.energy * self.system.potential(t / self.units.t, q / self.units.q, u)


class General(eg.Hamiltonian):
    """Any Hamiltonian in other units."""

    system: eg.Hamiltonian
    units: Units

    def __call__(self, t, q, p, u):
        return self.units.energy * self.system(t / self.units.t, q / self.units.q, p / self.units.p, u)

    def mirror(self, q):
        return self.system.mirror(q)


class Lagrange(eg.Lagrangian):
    """A Lagrangian in other units."""

    system: eg.Lagrangian
    units: Units

    def __call__(self, t, q, v, u):
        speed = self.units.q / self.units.t
        return self.units.energy * self.system(t / self.units.t, q / self.units.q, v / speed, u)


ZOO = {
    "FPUT": (eg.systems.FPUTChain(beta=0.1), {"n": 4}, 0.2),
    "pendulums": (eg.systems.PendulumChain(), {"n": 3}, 0.03),
    "Kepler": (eg.systems.Kepler(), {}, 0.05),
    "bodies": (eg.systems.NBody(mass=jnp.asarray([0.3, 0.2, 0.4])), {}, 0.1),
    "Duffing": (eg.systems.DuffingNetwork(), {}, 0.15),
    "charge": (eg.systems.ChargedParticle(), {}, 0.1),
    "double pendulum": (eg.systems.DoublePendulum(), {}, 0.02),
}
NUDGES = {
    "infinitesimal": eg.Infinitesimal(),
    "symmetric": eg.Symmetric(),
    "one-sided": eg.OneSided(),
    "Richardson": eg.Richardson(),
    "Holomorphic": eg.Holomorphic(points=4),
}
SCALES = [(0, 0, 0), (FAR, -FAR, 5), (-FAR, -FAR // 2, 7), (FAR // 3, FAR, -FAR // 2), (-FAR, FAR, FAR), (3, -FAR, -9)]


def rescaled(system, units):
    if isinstance(system, eg.Lagrangian):
        return Lagrange(system, units)
    return (Separable if isinstance(system, eg.SeparableHamiltonian) else General)(system, units)


def relative_gradients(system, start, dt, nudge, rule):
    """Return a function of the units: the loss, and its gradients in units of the unscaled problem."""

    @eqx.filter_jit
    def gradients(system, q, p, exponents, strength):
        unit = Units(*(jnp.ldexp(jnp.ones_like(q), e) for e in exponents)) if q.ndim == 0 else None
        unit = Units(*(jnp.ldexp(jnp.ones((), q.dtype), e) for e in exponents)) if unit is None else unit
        scale = jnp.ldexp(jnp.ones((), q.dtype), strength)

        def loss(arguments):
            system, q, p, step = arguments
            boundary = eg.InitialValue(q * unit.q, p * unit.p)
            run = eg.solve(rescaled(system, unit), boundary, dt=step * unit.t, steps=STEPS, gradient=rule(nudge))
            seen = run.q[-1] / unit.q, run.p[STEPS // 2] / unit.p
            return scale * sum(jnp.sum(jnp.sin(x) * x) for x in seen)

        found = eqx.filter_grad(loss)((system, q, p, jnp.asarray(dt, q.dtype)))
        return jax.tree.map(lambda x: x / scale, found)

    return lambda exponents, strength: gradients(
        system, *start, jnp.asarray(exponents, jnp.int32), jnp.asarray(strength)
    )


@pytest.mark.parametrize(
    ("name", "nudge", "rule"),
    [
        *((name, "infinitesimal", eg.Echo) for name in ("FPUT", "pendulums", "Kepler", "bodies", "Duffing", "charge")),
        ("double pendulum", "infinitesimal", eg.Glep),
        *(("FPUT", nudge, eg.Echo) for nudge in NUDGES if nudge != "infinitesimal"),
        ("Kepler", "symmetric", eg.Echo),
        ("Duffing", "symmetric", eg.SameBoundary),
    ],
    ids=str,
)
def test_powers_of_two_change_no_bit(name, nudge, rule):
    system, options, dt = ZOO[name]
    gradients = relative_gradients(system, system.start(**options), dt, NUDGES[nudge], rule)
    expected = gradients(SCALES[0], 0)
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(expected))
    for exponents, strength in itertools.product(SCALES[1:], (0,)):
        jax.tree.map(np.testing.assert_array_equal, gradients(exponents, strength), expected)
    for strength in (FAR, -FAR):  # the unit of the loss
        jax.tree.map(np.testing.assert_array_equal, gradients(SCALES[1], strength), expected)
