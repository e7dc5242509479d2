"""Mirrors: an echo with the right mirror is exact. Without it, it would be wrong and raises an error."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import echograd as eg
from cases import mixed, solve, worst
from echograd.systems import ChargedParticle, KerrLattice

pytestmark = [pytest.mark.float64_only, pytest.mark.least_effort]

# A ring with a phase between two sites: PT-symmetric under the exchange of 0, 1 and of 2, 3.
RING = np.array([[0, np.exp(0.5j), 0, 1], [np.exp(-0.5j), 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0]])


class Unmirrored(ChargedParticle):
    """A charge in a magnetic field, with a wrong time reversal that only flips its momentum."""

    def mirror(self, q):
        return q


WAVE = eg.canonical(jnp.asarray([1.0, 0.3j, 0.5 - 0.2j, -0.4]))
PLACE = jnp.asarray([0.8, -0.3]), jnp.asarray([0.1, 0.9])
CASES = {
    "magnetic field": (lambda right: (ChargedParticle if right else Unmirrored)(field=1.5), PLACE),
    "PT-symmetric Kerr lattice": (lambda right: KerrLattice(RING, 0.1, 0.5, [1, 0, 3, 2] if right else None), WAVE),
}


@pytest.mark.parametrize(("make", "start"), CASES.values(), ids=CASES)
def test_the_mirror_makes_the_echo(make, start):
    def loss(system, gradient, throw):
        sol = eg.solve(system, eg.InitialValue(*start), dt=0.15, steps=12, gradient=gradient, throw=throw)
        return mixed((sol.q[6], sol.q[-1], sol.p[-1]))

    @eqx.filter_jit
    def gradients(right, wrong):
        right = [eqx.filter_grad(loss)(right, g, throw) for g, throw in ((eg.Backprop(), False), (eg.Echo(), True))]
        return *right, eqx.filter_grad(loss)(wrong, eg.Echo(), False)

    expected, found, unmirrored = gradients(make(True), make(False))
    assert worst(found, expected) < 1e-9
    # By the inverse map the number is right although no machine could run this echo. It raises all the same.
    assert worst(eqx.tree_at(jax.tree.leaves, expected, jax.tree.leaves(unmirrored)), expected) < 1e-9
    with pytest.raises(eqx.EquinoxRuntimeError, match="not time-reversible"):
        eqx.filter_grad(loss)(make(False), eg.Echo(), True)


class Dragged(eg.Hamiltonian):
    """A weak drift, odd in the momentum, that an input or the clock switches on."""

    spring: jax.Array
    clocked: bool = eqx.field(static=True)

    def __call__(self, t, q, p, u):
        drift = 1e-4 * (jnp.sin(t) ** 2 if self.clocked else u) * jnp.sum(p**3)
        return 0.5 * jnp.sum(p**2) + 0.25 * jnp.sum(self.spring * q**4) + drift


@pytest.mark.parametrize("clocked", [True, False])
def test_what_is_odd_only_later_is_not_overlooked(clocked):
    """It is off at the start, and weak: either an error is raised, or the gradient is right."""
    system, u = Dragged(jnp.asarray([1.0, 2.0]), clocked), jnp.zeros(60).at[20:24].set(1.0)

    def loss(system, gradient, throw):
        start = eg.InitialValue(*PLACE)
        sol = eg.solve(system, start, u, dt=0.1, integrator=eg.ImplicitMidpoint(), gradient=gradient, throw=throw)
        return jnp.sum(sol.q[-1] ** 2)

    @eqx.filter_jit
    def gradients(system):
        rules = (eg.Backprop(), False), (eg.Glep(), True), (eg.Echo(), False)
        return [eqx.filter_grad(loss)(system, *rule) for rule in rules]

    expected, backward, unchecked = gradients(system)
    assert worst(backward, expected) < 1e-9
    assert worst(unchecked, expected) < 1e-9
    with pytest.raises(eqx.EquinoxRuntimeError, match="not time-reversible"):
        eqx.filter_grad(loss)(system, eg.Echo(), True)


def test_diagnose_sees_what_an_input_switches_on_for_a_moment():
    system, u = Dragged(jnp.asarray([1.0, 2.0]), False), jnp.zeros(60).at[20:24].set(1.0)
    found = eg.diagnose(system, eg.InitialValue(*PLACE), u, dt=0.1)
    assert isinstance(found.gradient, eg.Glep), str(found)


class Windy(eg.SplitHamiltonian):
    """A drag by a wind, which is a parameter plus an input."""

    spring: jax.Array
    wind: jax.Array

    def parts(self, t, u):
        drag = self.wind + u
        kinetic = eg.systems.Kinetic(lambda p: 0.5 * jnp.sum(p**2) + drag * jnp.sum(p))
        return kinetic, eg.systems.Potential(lambda q: jnp.sum(self.spring * q**4))


def test_a_zero_that_is_odd_in_the_momentum_is_not_read_with_the_wrong_sign():
    """Without wind the energy is even, so the echo retraces, but its derivative with respect to the wind is odd."""

    @eqx.filter_jit
    def gradients(wanted, rest, rule, throw):
        def loss(wanted):
            system, u = eqx.combine(wanted, rest)
            sol = eg.solve(system, eg.InitialValue(*PLACE), u, dt=0.1, gradient=rule, throw=throw)
            return mixed((sol.q[6], sol.q[-1]))

        return eqx.filter_grad(loss)(wanted)

    both = Windy(jnp.asarray(0.3), jnp.asarray(0.0)), jnp.zeros(12)
    expected = gradients(both, both, eg.Backprop(), False)
    for rule in (eg.Echo(), eg.Glep()):
        assert worst(gradients(both, both, rule, True), expected) < 1e-9


def test_a_real_hopping_of_complex_type_has_a_phase_that_is_odd():
    @eqx.filter_jit
    def gradient(hopping, rule):
        def loss(hopping):
            start = eg.InitialValue(*WAVE)
            sol = solve(KerrLattice(hopping, 0.1, 0.5), start, dt=0.1, steps=12, gradient=rule)
            return mixed(sol.q[-1])

        return jax.grad(loss)(hopping)

    hopping = jnp.asarray(np.abs(RING).astype(complex))
    expected, found = (gradient(hopping, rule) for rule in (eg.Backprop(), eg.Echo()))
    assert np.any(expected.imag != 0)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
