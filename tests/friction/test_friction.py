"""The motion with friction: exact factors, second order, thermostats, and what `diagnose` and `audit` say of it."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import echograd as eg
from cases import solve
from echograd.friction import Drag, FrictionMatrix, Langevin, NoseHoover

pytestmark = [pytest.mark.least_effort, pytest.mark.float64_only]


class Free(eg.SeparableHamiltonian):
    def kinetic(self, t, p):
        return 0.5 * jnp.sum(p**2)

    def potential(self, t, q, u):
        return 0.0 * jnp.sum(q)


class Oscillator(eg.SeparableHamiltonian):
    def kinetic(self, t, p):
        return 0.5 * jnp.sum(p**2)

    def potential(self, t, q, u):
        return 0.5 * jnp.sum(q**2)


def test_free_momenta_decay_by_the_exact_factor():
    rates, p = jnp.asarray([0.0, 0.3, 2.0]), jnp.asarray([1.0, -2.0, 3.0])
    sol = eg.solve(eg.Damped(Free(), rates), eg.InitialValue(jnp.ones(3), p), dt=0.1, steps=50)
    np.testing.assert_allclose(
        sol.p, np.asarray(p) * np.exp(-np.asarray(rates) * np.asarray(sol.t)[:, None]), rtol=1e-11, atol=1e-12
    )


def test_a_matrix_takes_the_momenta_through_its_exponential():
    rng = np.random.default_rng(1)
    matrix = rng.normal(size=(5, 5))  # not symmetric: it also turns them
    p = jnp.asarray(rng.normal(size=5))
    sol = eg.solve(eg.Damped(Free(), FrictionMatrix(matrix)), eg.InitialValue(jnp.ones(5), p), dt=0.05, steps=40)
    expected = jax.scipy.linalg.expm(-matrix * 2.0) @ p
    np.testing.assert_allclose(sol.p[-1], expected, rtol=1e-9, atol=1e-11)


def test_a_matrix_that_turns_by_more_than_a_right_angle_raises():
    turn = FrictionMatrix(jnp.asarray([[0.0, 3.0], [-3.0, 0.0]]))
    with pytest.raises(eg.RunError, match="Shorten dt"):
        eg.solve(eg.Damped(Free(), turn), eg.InitialValue(jnp.ones(2), jnp.ones(2)), dt=1.0, steps=2)


@pytest.mark.parametrize(
    "integrator", [eg.Leapfrog(exact=True), eg.VelocityVerlet(exact=True), eg.Leapfrog()], ids=repr
)
def test_a_damped_oscillator_is_met_to_second_order(integrator):
    rate, time = 0.5, 3.0
    w = np.sqrt(1 - rate**2 / 4)
    expected = np.exp(-rate * time / 2) * (np.cos(w * time) + rate / (2 * w) * np.sin(w * time))

    def error(steps):
        start = eg.InitialValue(jnp.ones(1), jnp.zeros(1))
        sol = solve(
            eg.Damped(Oscillator(), rate),
            start,
            dt=time / steps,
            steps=steps,
            integrator=integrator,
            gradient=eg.Backprop(),
        )
        return abs(float(sol.q[-1, 0]) - expected)

    assert abs(np.log2(error(50) / error(100)) - 2) < 0.1


def test_quadratic_drag_is_met_to_second_order():
    class Quadratic(eqx.Module):
        def __call__(self, t, q, p, u):
            return jnp.abs(p) * p

    def error(steps):
        start = eg.InitialValue(jnp.ones(1), jnp.ones(1))
        sol = eg.solve(eg.Damped(Free(), Drag(Quadratic())), start, dt=2.0 / steps, steps=steps)
        return abs(float(sol.p[-1, 0]) - 1 / 3)

    assert abs(np.log2(error(20) / error(40)) - 2) < 0.15


def test_a_bath_keeps_its_temperature_and_a_key_its_path():
    def run(seed):
        system = eg.Damped(Oscillator(), Langevin(1.0, 0.7, jax.random.key(seed)))
        start = eg.InitialValue(jnp.zeros(200), jnp.ones(200))
        return solve(system, start, dt=0.2, steps=400, gradient=eg.Backprop())

    sol = run(0)
    # The coordinates of BAOAB sample exactly in a harmonic potential; the momenta to second order.
    np.testing.assert_allclose(jnp.mean(sol.q[100:] ** 2), 0.7, rtol=0.03)
    np.testing.assert_allclose(jnp.mean(sol.p[100:] ** 2), 0.7, rtol=0.05)
    np.testing.assert_array_equal(run(0).q, sol.q)
    assert jnp.max(jnp.abs(run(1).q - sol.q)) > 0.1


def test_a_bath_refuses_masses_that_are_not_constant():
    class Relativistic(Oscillator):
        def kinetic(self, t, p):
            return jnp.sum(jnp.sqrt(1 + p**2))

    system = eg.Damped(Relativistic(), Langevin(1.0, 0.7, jax.random.key(0)))
    with pytest.raises(eg.RunError, match="kinetic energy is not a sum"):
        eg.solve(system, eg.InitialValue(jnp.ones(2), jnp.ones(2)), dt=0.1, steps=2)


def test_a_thermostat_keeps_its_invariant_and_reaches_its_temperature():
    n = 8
    chain = eg.systems.FPUTChain(beta=0.3)
    q, p = jnp.sin(jnp.arange(n, dtype=float)), 2 * jnp.cos(jnp.arange(n, dtype=float))
    system = eg.Damped(chain, NoseHoover(temperature=0.5, inertia=4.0))
    start = eg.InitialValue((q, jnp.zeros(())), (p, jnp.zeros(())))
    sol = solve(system, start, dt=0.02, steps=20_000, gradient=eg.Backprop(), save=eg.EveryNode(20))
    kept = eg.energy(system, sol)
    assert jnp.max(jnp.abs(kept / kept[0] - 1)) < 1e-3
    np.testing.assert_allclose(jnp.mean(sol.p[0] ** 2), 0.5, rtol=0.1)


def test_an_initial_velocity_becomes_a_momentum():
    system = eg.Damped(eg.systems.FPUTChain(mass=2.0), 0.1)
    sol = eg.solve(system, eg.InitialValue(jnp.zeros(3), v=jnp.ones(3)), dt=0.1, steps=2)
    np.testing.assert_allclose(sol.p[0], 2.0, rtol=1e-12)
    np.testing.assert_allclose(eg.velocity(system, sol)[0], 1.0, rtol=1e-12)


def test_an_unstable_step_is_refused():
    with pytest.raises(eg.RunError, match="the step is unstable"):
        eg.solve(eg.Damped(Oscillator(), 0.1), eg.InitialValue(jnp.ones(2), jnp.ones(2)), dt=2.5, steps=3)


DIAGNOSES = {
    "none": (0.0, "none", r"Echo\(\)"),
    "one rate": (0.3, "mass-proportional", r"MassDamped\(system, 0.3\)"),
    "rates": (jnp.asarray([0.0, 0.3]), "linear", "LinearDamped"),
    "varying": (lambda t, q, u: q**2, "varying", "no exact gradient"),
    "matrix": (FrictionMatrix(0.2 * jnp.eye(2)), "linear", "LinearDamped"),
    "drag": (Drag(lambda t, q, p, u: jnp.abs(p) * p), "nonlinear", "no exact gradient"),
    "bath": (Langevin(0.1, 0.3, jax.random.key(0)), "thermal", "no exact gradient"),
}


@pytest.mark.parametrize("case", DIAGNOSES)
def test_diagnose_names_the_friction_and_the_gradient(case):
    friction, kind, advice = DIAGNOSES[case]
    found = eg.diagnose(eg.Damped(Oscillator(), friction), eg.InitialValue(jnp.ones(2), jnp.ones(2)), dt=0.1, steps=20)
    assert found.damping == kind
    assert isinstance(found.gradient, eg.Rewind)
    assert "Rewind()" in found.recommendation
    assert re.search(advice, found.recommendation)


def test_an_audit_says_that_rewinding_is_exact_and_software_only():
    start = eg.InitialValue(jnp.ones(2), jnp.ones(2))
    system = eg.Damped(Oscillator(), jnp.asarray([0.1, 0.3]))
    rules = {"rewind": (start, eg.Rewind()), "echo": (start, eg.Echo())}
    rewind, echo = eg.audit(system, rules, dt=0.1, steps=20).rows
    assert rewind.error < 1e-12
    assert rewind.passes == 2
    assert not rewind.forward_only
    assert not rewind.local
    assert "software only" in rewind.why
    assert "no machine runs back" in echo.refused
