"""A sound run: its clock resolves its steps, its step is stable, and it has not blown up."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import echograd as eg

pytestmark = pytest.mark.least_effort

X64 = jax.config.jax_enable_x64


class Driven(eg.SeparableHamiltonian):
    def kinetic(self, t, p):
        return 0.5 * jnp.sum(p**2)

    def potential(self, t, q, u):
        return 0.5 * jnp.sum(q**2) - jnp.cos(2 * t) * q[0]


class Free(eg.SeparableHamiltonian):
    def kinetic(self, t, p):
        return 0.5 * jnp.sum(p**2)

    def potential(self, t, q, u):
        return 0.5 * jnp.sum(q**2)


def run(system, q, p, **options):
    return eg.solve(system, eg.InitialValue(jnp.asarray(q), jnp.asarray(p)), **options)


def test_a_clock_coarser_than_the_steps_is_refused():
    """Whole periods later the path is the same, or the floating-point numbers there are too far apart."""
    late = 1e5 * np.pi * (2.0**29 if X64 else 1)
    early, soon = (run(Driven(), [1.0], [0.0], dt=0.01, steps=20, t0=n * np.pi).q[-1] for n in (0, 10))
    np.testing.assert_allclose(soon, early, rtol=1e-4)
    with pytest.raises(eqx.EquinoxRuntimeError, match=r"spacing of float\d\d numbers .* is \d"):
        run(Driven(), [1.0], [0.0], dt=0.01, steps=20, t0=late)
    # What does not read the clock needs none, unless its times are asked for.
    assert np.isfinite(run(Free(), [1.0], [0.0], dt=0.01, steps=20, t0=late, save=eg.FinalNode()).q[0])
    with pytest.raises(eqx.EquinoxRuntimeError, match="the clock cannot follow"):
        run(Free(), [1.0], [0.0], dt=0.01, steps=20, t0=late)


class Morse(eg.SeparableHamiltonian):
    """Soft where it starts, stiff where it goes."""

    depth: jax.Array

    def kinetic(self, t, p):
        return jnp.sum(p**2) / 2

    def potential(self, t, q, u):
        return jnp.sum(self.depth * (jnp.exp(-4 * q) - 2 * jnp.exp(-2 * q)))


@pytest.mark.fast
def test_a_run_that_blows_up_is_refused_though_it_is_finite():
    system = Morse(jnp.asarray(20.0))
    with pytest.raises(eqx.EquinoxRuntimeError, match=r"blown up.* by \d\S* times"):
        run(system, [1.5], [-1.0], dt=0.3, steps=40)
    assert np.all(np.isfinite(run(system, [1.5], [-1.0], dt=0.3, steps=40, throw=False).q))
    run(system, [1.5], [-1.0], dt=0.01, steps=400)


class Hilltop(Free):
    """Motion that starts with next to no energy, on a hill."""

    def potential(self, t, q, u):
        return jnp.sum(0.25 * q**4 - 0.5 * q**2)


class Kink(Free):
    """A force that jumps: its curvature there is no frequency."""

    def potential(self, t, q, u):
        return jnp.sum(jnp.sqrt(q**2 + 1e-6))


def test_what_only_looks_unstable_is_not_refused():
    run(Hilltop(), [1e-6], [0.0], dt=0.1, steps=300)
    run(Kink(), [0.0], [1.0], dt=0.1, steps=100)
    with pytest.raises(eqx.EquinoxRuntimeError, match=r"step is unstable.* = 4\.4"):
        run(Free(), [1.0], [0.0], dt=2.1, steps=5)


@pytest.mark.parametrize("exponent", [40, -40] if not X64 else [300, -300])
def test_the_stability_check_does_not_overflow(exponent):
    class Scaled(Free):
        def potential(self, t, q, u):
            return jnp.sum((2.0**exponent) * 0.5 * q**2)

        def kinetic(self, t, p):
            return jnp.sum((2.0**-exponent) * 0.5 * p**2)

    run(Scaled(), [1.0], [0.0], dt=0.1, steps=5)
    with pytest.raises(eqx.EquinoxRuntimeError, match=r"step is unstable.* = 4\.4"):
        run(Scaled(), [1.0], [0.0], dt=2.1, steps=5)


def test_a_missing_number_in_a_large_state_is_seen():
    """On CPU, XLA's maximum of a large array ignores NaNs."""

    class Pit(eg.SeparableHamiltonian):
        def kinetic(self, t, p):
            return 0.5 * jnp.sum(p**2)

        def potential(self, t, q, u):
            return jnp.sum(jnp.where(q > 3.0, jnp.sqrt(3.0 - q), -q))

    start = eg.InitialValue(jnp.zeros((300, 300)), jnp.zeros((300, 300)))
    with pytest.raises(eg.RunError, match="not finite at its end"):
        eg.solve(Pit(), start, dt=0.1, steps=60, save=eg.FinalNode())
