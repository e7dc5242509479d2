"""A user's energy is traced a bounded number of times; a second call with the same shapes traces nothing."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from jaxtyping import Array

import echograd as eg

pytestmark = [pytest.mark.precision_free, pytest.mark.least_effort]

COUNTS = {"kinetic": 0, "potential": 0, "cost": 0}


class Counting(eg.SeparableHamiltonian):
    stiffness: Array

    def kinetic(self, t, p):
        COUNTS["kinetic"] += 1
        return 0.5 * jnp.sum(p**2)

    def potential(self, t, q, u):
        COUNTS["potential"] += 1
        return 0.5 * jnp.sum(self.stiffness * q**2) - u * q[0]


def loss(system, q, inputs, gradient):
    def cost(t, q, p):
        COUNTS["cost"] += 1
        return jnp.sum(q**2)

    sol = eg.solve(system, eg.InitialValue(q, 0 * q), inputs, dt=0.1, gradient=gradient, cost=cost)
    return jnp.sum(sol.q[-1]) + sol.cost


def traced(f, *arguments):
    """Return how often a call traces each function of the user."""
    before = dict(COUNTS)
    jax.block_until_ready(f(*arguments))
    return {name: COUNTS[name] - before[name] for name in COUNTS}


@pytest.mark.parametrize(
    ("gradient", "bound"), [(eg.Echo(), 24), (eg.Echo(eg.Symmetric("auto")), 24), (eg.Backprop(), 14)], ids=str
)
def test_traces(gradient, bound):
    f = eqx.filter_jit(lambda system, q, inputs: eqx.filter_grad(loss)(system, q, inputs, gradient))
    system, q = Counting(jnp.asarray(1.0)), jnp.ones(3)
    first = traced(f, system, q, jnp.ones(5))
    assert 0 < max(first.values()) <= bound
    # Other numbers of the same shape trace nothing.
    assert set(traced(f, Counting(jnp.asarray(2.0)), 2 * q, jnp.zeros(5)).values()) == {0}
    # A longer run is another program and is traced as often.
    longer = traced(f, system, q, jnp.ones(500))
    assert longer["potential"] > 0
    assert max(longer.values()) <= bound


def test_without_jit_the_run_itself_is_traced_once():
    """Outside of `jit` every call checks the arguments, and nothing is compiled again."""
    system, q, inputs = Counting(jnp.asarray(1.0)), jnp.ones(4), jnp.ones(5)  # a shape not used above

    def cost(t, q, p):
        return jnp.sum(q**2)

    def run(system, q):
        return eg.solve(system, eg.InitialValue(q, 0 * q), inputs, dt=0.1, cost=cost).q

    first = traced(run, system, q)
    second = traced(run, system, 2 * q)
    assert second["potential"] <= 2 < first["potential"]
    assert traced(run, system, 3 * q) == second
