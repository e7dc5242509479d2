"""Second derivatives: exact by forward mode over reverse mode, whatever the gradient; everything else raises."""

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import echograd as eg
from cases import solve

pytestmark = [pytest.mark.float64_only, pytest.mark.least_effort]

STEPS = 15


class Duet(eg.SeparableHamiltonian):
    """Two coupled anharmonic masses, heavier at speed, in a washboard: sines take a way of their own in a loop."""

    spring: Array

    def kinetic(self, t, p):
        return jnp.sum(jnp.cosh(p))

    def potential(self, t, q, u):
        return 0.5 * jnp.sum(self.spring * q**2) + 0.3 * q[0] * q[1] ** 2 + 0.2 * jnp.sum(jnp.cos(3 * q))


START = jnp.asarray([0.1, 0.2]), jnp.asarray([0.4, 0.3])
ENDS = {
    "initial value": START,
    "robin": (jnp.asarray([[0.3, 0.5], [-0.2, 0.4]]), jnp.asarray([[-0.3, 0.5], [-0.2, 0.4]]), START[0]),
}


def loss(arguments, rule):
    spring, data = arguments
    boundary = (eg.InitialValue if len(data) == 2 else eg.Robin)(*data)
    cost = lambda t, q, p: jnp.sum(q**2 * p**2)  # noqa: E731
    sol = solve(Duet(spring), boundary, dt=0.1, steps=STEPS, gradient=rule, cost=cost)
    return jnp.sum(sol.q**2) + sol.cost**2


def flat(tree):
    return jax.flatten_util.ravel_pytree(tree)[0]


@pytest.mark.parametrize(("ends", "rule"), [("initial value", eg.Echo()), ("robin", eg.Glep())])
def test_a_hessian_is_that_of_the_discrete_problem(ends, rule):
    """Along one direction, against central differences of gradients; by `jacrev`, which pulls back a batch of one."""
    x = (jnp.asarray([1.0, 2.0]), ENDS[ends])

    @eqx.filter_jit
    def turned(x, rule):
        return flat(jax.jvp(jax.jacrev(lambda x: loss(x, rule)), (x,), (x,))[1])

    slope = jax.jit(jax.grad(lambda x: loss(x, eg.Backprop())))
    step = 1e-5
    up, down = (flat(slope(jax.tree.map(lambda x, s=s: x * (1 + s), x))) for s in (step, -step))
    expected = turned(x, eg.Backprop())
    np.testing.assert_allclose(expected, (up - down) / (2 * step), rtol=1e-6)
    np.testing.assert_allclose(turned(x, rule), expected, rtol=1e-9)


def test_a_hessian_of_a_lagrangian_by_the_step_too():
    """Its action holds the ends of a step while the step changes, but not while the gradient does."""
    system = eg.systems.SphericalPendulum()

    def slope(dt, rule):
        def loss(dt):
            start = eg.InitialValue(*system.start())
            sol = solve(system, start, dt=dt, steps=3, gradient=rule, save=eg.FinalNode())
            return jnp.sum(jnp.sin(sol.q)) + jnp.sum(sol.p**2)

        return jax.grad(loss)(dt)

    curvature = jax.jit(jax.jacfwd(slope), static_argnums=1)
    dt = jnp.asarray(0.02)
    np.testing.assert_allclose(curvature(dt, eg.Echo()), curvature(dt, eg.Backprop()), rtol=1e-9)


@pytest.mark.fast
def test_a_hessian_of_an_equilibrium():
    """The energy is stationary in the state, its slope by a parameter is not."""
    x = {"stiffness": jnp.asarray([1.0, 2.0]), "field": jnp.asarray([0.5, 0.7]), "bond": jnp.asarray(0.4)}

    def loss(x, rule):
        def energy(s, u):
            well = 0.5 * jnp.sum(x["stiffness"] * s**2) + 0.1 * jnp.sum(s**4)
            return well - x["field"] @ s + x["bond"] * s[0] * s[1]

        found = eg.equilibrium(energy, jnp.zeros(2), gradient=rule, solver=eg.Newton())
        return jnp.sum(jnp.sin(found.state)) + found.energy

    def turned(rule):
        return flat(jax.jit(lambda x: jax.jvp(jax.grad(lambda x: loss(x, rule)), (x,), (x,))[1])(x))

    np.testing.assert_allclose(turned(eg.EP()), turned(eg.Implicit()), rtol=1e-9)


def test_a_hessian_of_a_linear_unit(new_key):
    """Its rotations are made in integers, which have no derivative of their own."""
    u = jax.random.normal(new_key(), (6, 2))

    def turned(gradient):
        unit = eg.nn.LinearHRU(2, 1, units=3, gradient=gradient, key=jax.random.key(1))
        params, static = eqx.partition(unit, eqx.is_inexact_array)
        slope = jax.grad(lambda x: jnp.sum(jnp.sin(eqx.combine(x[0], static)(x[1]))))
        return flat(jax.jit(lambda x: jax.jvp(slope, (x,), (x,))[1])((params, u)))

    np.testing.assert_allclose(turned(eg.Echo()), turned(eg.Backprop()), rtol=1e-9, atol=1e-12)


def test_an_echo_has_no_forward_mode_of_its_own():
    x = (jnp.asarray([1.0, 2.0]), START)
    with pytest.raises(TypeError, match="forward mode"):
        jax.jvp(lambda x: loss(x, eg.Echo()), (x,), (x,))
