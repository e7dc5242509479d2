"""Units do not matter: the same problem in other units gives the same relative gradient, bit for bit."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import echograd as eg
from cases import solve

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
            run = solve(rescaled(system, unit), boundary, dt=step * unit.t, steps=STEPS, gradient=rule(nudge))
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
        *((name, "infinitesimal", eg.Echo) for name in ("FPUT", "charge")),
        pytest.param("Kepler", "infinitesimal", eg.Echo, marks=pytest.mark.float64_only),
        pytest.param("pendulums", "infinitesimal", eg.Echo, marks=[pytest.mark.float64_only, pytest.mark.exhaustive]),
        ("double pendulum", "infinitesimal", eg.Glep),
        ("FPUT", "symmetric", eg.Echo),
        *(
            pytest.param("FPUT", nudge, eg.Echo, marks=pytest.mark.float64_only)
            for nudge in ("one-sided", "Richardson", "Holomorphic")
        ),
        pytest.param("Duffing", "symmetric", eg.SameBoundary, marks=pytest.mark.float64_only),
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


ATOM, SIGMA = 6.6e-26, 3.4e-10  # argon, kg and m
AU = 1.496e11


class Dimer(eg.SeparableHamiltonian):
    """Two atoms of argon."""

    depth: jax.Array

    def kinetic(self, t, p):
        return jnp.sum(p**2) / (2 * ATOM)

    def potential(self, t, q, u):
        s = SIGMA**2 / jnp.sum((q[0] - q[1]) ** 2)
        return 4 * self.depth * (s**6 - s**3)


class Orbit(eg.SeparableHamiltonian):
    """A planet about the sun, in metres and seconds."""

    mass: jax.Array
    gm: jax.Array

    def kinetic(self, t, p):
        return jnp.sum(p**2) / (2 * self.mass)

    def potential(self, t, q, u):
        return -self.gm * self.mass / jnp.sqrt(jnp.sum(q**2))


class Trap(eg.SeparableHamiltonian):
    """A calcium ion in a Paul trap: explicit time, 1e-6 m, 1e-8 s, Mathieu's q = 0.3 and a = 0.02."""

    drive: jax.Array

    def kinetic(self, t, p):
        return jnp.sum(p**2) / (2 * ATOM)

    def potential(self, t, q, u):
        rf = 2 * jnp.pi * 2e7
        field = 0.25 * rf**2 * (0.02 - 2 * self.drive * jnp.cos(rf * t))
        return 0.5 * (ATOM * field) * (q[0] ** 2 - q[1] ** 2)


class Building(eg.SeparableHamiltonian):
    """Storeys of a building."""

    stiffness: jax.Array

    def kinetic(self, t, p):
        return jnp.sum(p**2) / (2 * 1e6)

    def potential(self, t, q, u):
        return 0.5 * jnp.sum(self.stiffness * jnp.diff(q, prepend=0.0) ** 2)


def _array(x):
    return jnp.asarray(x, jnp.result_type(float))


SI = {
    "argon": (
        Dimer(_array(1.65e-21)),
        [[0, 0, 0], [3.7e-10, 2e-11, 0]],
        [[100 * ATOM, 200 * ATOM, 300 * ATOM], [-100 * ATOM, -200 * ATOM, -300 * ATOM]],
        1e-14,
        SIGMA,
    ),
    "an orbit": (Orbit(_array(1.0), _array(1.327e20)), [AU, 0], [0, 2.98e4], 86400.0, AU),
    "a trapped ion": (Trap(_array(0.3)), [1e-6, 2e-6], [0, 0], 2e-9, 1e-6),
    "a building released from rest": (Building(_array([4e7, 3e7, 3e7])), [0.01, 0.02, 0.03], [0, 0, 0], 0.02, 0.01),
}


# Of a circular orbit in other units, the test of powers of two shows more.
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.exhaustive] * (name == "an orbit")) for name in SI]
)
def test_si_units(name):
    """Metres, kilograms and seconds, in float32 too: the default gradient and nudges of automatic strength."""
    system, q, p, dt, unit = SI[name]

    @eqx.filter_jit
    def gradients(system, q, p):
        def loss(arguments, gradient):
            system, q, p = arguments
            boundary = eg.InitialValue(q, p)
            run = solve(system, boundary, dt=dt, steps=100, save=eg.FinalNode(), gradient=gradient)
            return jnp.sum((run.q / unit) ** 2)

        kinds = eg.Backprop(), eg.Echo(), eg.Echo(eg.Symmetric()), eg.Echo(eg.Richardson())
        return [eqx.filter_grad(loss)((system, q, p), kind) for kind in kinds]

    if name in ("argon", "a trapped ion") and not jax.config.jax_enable_x64:
        # Actions are 1e-31 and 1e-34 there: refused, whatever underflows first.
        with pytest.raises(eqx.EquinoxRuntimeError, match=r"a coordinate times a momentum is|is not finite"):
            gradients(system, _array(q), _array(p))
        return
    expected, *found = gradients(system, _array(q), _array(p))
    tolerances = (1e-9, 1e-4, 1e-6) if jax.config.jax_enable_x64 else (1e-3, 5e-2, 1e-2)
    for gradient, tolerance in zip(found, tolerances, strict=True):
        for x, y in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance * float(jnp.max(jnp.abs(y))))
