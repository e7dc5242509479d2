"""Parameters that move: the extended system is an ordinary Hamiltonian."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import echograd as eg
from cases import chain, mixed, solve, worst
from echograd.systems import KerrLattice

pytestmark = pytest.mark.least_effort

LATTICE = KerrLattice(np.eye(3, k=1) + np.eye(3, k=-1), jnp.asarray([0.1, -0.2, 0.3]), jnp.asarray(0.6))


def moving():
    """A lattice whose detunings and nonlinearity move; its hoppings remain parameters."""
    return eg.MovingParameters(LATTICE, 2.0, where=lambda lattice: {"d": lattice.detuning, "g": lattice.kerr})


@pytest.mark.float64_only
def test_every_leaf():
    system = moving()
    rng = np.random.default_rng(0)
    q, p = system.state(jnp.asarray(rng.normal(size=3)), jnp.asarray(rng.normal(size=3)))
    p = (p[0], {"d": jnp.asarray(rng.normal(size=3)), "g": jnp.asarray(0.3)})

    @eqx.filter_jit
    def both(arguments):
        def loss(arguments, gradient):
            system, q, p, dt = arguments
            sol = solve(system, eg.InitialValue(q, p), dt=dt, steps=6, gradient=gradient, save=eg.FinalNode())
            return mixed((sol.q, sol.p))

        return [eqx.filter_grad(loss)(arguments, gradient) for gradient in (eg.Backprop(), eg.Echo())]

    expected, found = both((system, q, p, jnp.asarray(0.13)))
    # Moving parameters start from the state; their values in the system are not used.
    assert not np.any(expected[0].system.detuning)
    there = lambda x: eqx.tree_at(lambda x: (x[0].system.detuning, x[0].system.kerr), x, (None, None))  # noqa: E731
    assert worst(there(found), there(expected)) < 1e-9


@pytest.mark.float64_only
def test_the_momentum_takes_up_the_readings():
    """With a huge mass only the momenta of parameters change, and dπ/dt = -∂H/∂θ: the derivative of the action."""
    point = chain(8)
    heavy = eg.MovingParameters(point.system, 1e15)
    start = eg.InitialValue(*heavy.state(point.q, point.p))
    sol = eg.solve(heavy, start, point.inputs, dt=0.05)
    plain = eg.solve(point.system, eg.InitialValue(point.q, point.p), point.inputs, dt=0.05)
    np.testing.assert_allclose(sol.q[0], plain.q, rtol=1e-12)
    q, p, m = np.asarray(plain.q), np.asarray(plain.p), np.asarray(point.system.mass)
    half = q[:-1] + 0.025 * p[:-1] / m
    mass, stiffness = sol.p[1]
    np.testing.assert_allclose(stiffness[-1], -0.05 * np.sum(0.5 * half**2, 0), rtol=1e-10)
    kinetic = p**2 / (2 * m**2)
    np.testing.assert_allclose(mass[-1], 0.025 * np.sum(kinetic[1:] + kinetic[:-1], 0), rtol=1e-10)


@pytest.mark.float64_only
def test_energy_and_reversal():
    system = moving()
    q, p = system.state(jnp.asarray([1.0, 0.5, -0.2]), jnp.asarray([0.1, 0.0, 0.4]))
    start = eg.InitialValue(q, p)
    assert eg.retrace_error(system, start, dt=0.1, steps=20) < 1e-13

    @eqx.filter_jit
    def drift(steps):
        sol = eg.solve(system, start, dt=2.0 / steps, steps=steps)
        energy = jax.vmap(lambda q, p: system(0.0, q, p, None))(sol.q, sol.p)
        return jnp.max(jnp.abs(energy - energy[0])), sol.q[1]["d"][-1]

    (coarse, moved), (fine, _) = drift(20), drift(40)
    assert jnp.log2(coarse / fine) == pytest.approx(2, abs=0.15)
    assert jnp.max(jnp.abs(moved - LATTICE.detuning)) > 0.1


def test_what_cannot_move_is_refused():
    class Whole(eg.Hamiltonian):
        def __call__(self, t, q, p, u):
            return jnp.sum(q**2 * p**2)

    with pytest.raises(TypeError, match="does not define the parts"):
        eg.MovingParameters(Whole(), 1.0)
    with pytest.raises(ValueError, match="at least one"):
        eg.MovingParameters(LATTICE, 1.0, where=lambda lattice: [])
    with pytest.raises(ValueError, match="real arrays"):
        eg.MovingParameters(KerrLattice(1j * (np.eye(2, k=1) - np.eye(2, k=-1))), 1.0, where=lambda x: x.hopping)
    with pytest.raises(ValueError, match="as they are"):
        eg.MovingParameters(LATTICE, 1.0, where=lambda lattice: [jnp.ones(3)])
    with pytest.raises(ValueError, match="one number is needed"):
        eg.MovingParameters(LATTICE, jnp.ones(2))
