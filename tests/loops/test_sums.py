"""What a loop sums is the same, in whatever form it is summed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import echograd as eg
from echograd._loops._sums import summed

on_cpu = pytest.mark.skipif(jax.default_backend() != "cpu", reason="nothing is rearranged elsewhere")


def everything(a, b, table):
    """Return a step whose summands are made of what lasts and what does not in many ways."""
    zeros, nothing = jnp.zeros(4), jnp.asarray(0.0)

    def step(k, state):
        x, (y, n) = state
        t = k.astype(x.dtype)
        wave = jnp.tanh(a * x + 0.1 * y)
        here = table[k]
        added = {
            "shared": (3.0 * (a * (wave * y)), -(b * wave) * y / 2, jnp.sum(2 * (wave * y))),
            "mixed": a * (x * y) - (b * wave) * 0.5 + a * (here * y),
            "whole": jnp.where(x > 0, x, 0.1 * a) + zeros,
            "lasting": (a * b, a * nothing, 2.0, jnp.asarray(3)),
            "scalar": (t * jnp.sum(x), t, n, (3 * n) // 2),
            "broad": jnp.ones((2, 4)) * (y * x)[None] * a[None] * jnp.asarray(-2.0),
            "complex": jax.lax.complex(x, y) * jax.lax.complex(a, b),
            "divided": (x * y) / a - 4 * (wave - y) / a,
            "apart": (jnp.sum(x) * jnp.sum(a * y), -x, (a * x, b * x)),
            "zero": 0.0 * (a * x) + 1.0 * x,
            "out of range": 1e30 * (1e30 * (1e-30 * (1e-30 * x))),
        }
        return (x + 0.1 * y, (y - 0.1 * wave - 0.01 * here, n + k)), added

    return step


def by_hand(step, steps, state):
    total = jax.tree.map(jnp.zeros_like, jax.eval_shape(step, jnp.asarray(0, jnp.int32), state)[1])
    for k in range(steps):
        state, added = step(jnp.asarray(k, jnp.int32), state)
        total = jax.tree.map(jnp.add, total, added)
    return state, total


@pytest.mark.parametrize("steps", [0, 5])
def test_the_sums_are_the_same(steps):
    a, b = jnp.linspace(0.5, 2.0, 4), jnp.linspace(-1.0, 1.0, 4)
    state = jnp.linspace(-1.0, 1.0, 4), (jnp.ones(4), jnp.asarray(0, jnp.int32))
    table = jnp.sin(jnp.arange(20.0).reshape(5, 4))
    expected = by_hand(everything(a, b, table), steps, state)
    for transform in (lambda f: f, jax.jit):
        found = transform(lambda a, state: summed(everything(a, b, table), steps, state))(a, state)
        assert jax.tree.structure(found) == jax.tree.structure(expected)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-6), found, expected)
        assert all(x.dtype == y.dtype for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True))
    batch = jax.vmap(lambda a: summed(everything(a, b, table), steps, state))(jnp.stack([a, 2 * a]))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x[0], y, rtol=2e-5, atol=2e-6), batch, expected)


def carried(function, *arguments):
    """Return the sizes of the arrays that the longest loop takes from step to step."""
    sizes = []

    def look(jaxpr):
        for equation in jaxpr.eqns:
            if equation.primitive.name == "while":
                inner = equation.params["body_jaxpr"].jaxpr
                sizes.append(sorted(v.aval.size for v in inner.outvars))
            for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
                if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                    look(getattr(inner, "jaxpr", inner))

    look(jax.make_jaxpr(function)(*arguments).jaxpr)
    return sizes[-1]


@on_cpu
def test_mass_length_and_gravity_are_read_off_two_sums():
    """Coordinates, momenta, their tangents, and p dp, sin(q) dq and twist: no sum of its own for every parameter."""
    n, long = 5, 20_000

    def cost(system, n=n):
        q, p = eg.systems.PendulumChain().start(n=n)
        return eg.solve(
            system,
            eg.InitialValue(q, p),
            dt=0.1,
            steps=50,
            save=eg.FinalNode(),
            cost=lambda t, q, p: jnp.sum(q**2),
            throw=False,
        ).cost

    one = eg.systems.PendulumChain(coupling=jnp.ones(n - 1))
    # The numbers are the counter and the last step: that of gravity has no sum of its own.
    many = eg.systems.PendulumChain(jnp.ones(n), jnp.ones(n), jnp.ones(n - 1))
    assert carried(jax.grad(cost), many) == [1, 1, n - 1, *(6 * [n])]
    # The readings of single numbers are added up over the chain after the loop, and of a long chain in the loop.
    assert carried(jax.grad(cost), one).count(n) == 6
    one = eg.systems.PendulumChain(coupling=jnp.ones(long - 1))
    assert carried(jax.grad(lambda system: cost(system, long)), one).count(long) == 4


@on_cpu
def test_a_running_cost_is_added_up_over_the_state_after_the_loop():
    q, p = eg.systems.PendulumChain().start(n=5)

    def solve(save, cost):
        return eg.solve(
            eg.systems.PendulumChain(), eg.InitialValue(q, p), dt=0.1, steps=50, save=save, cost=lambda t, q, p: cost(q)
        )

    expected = jnp.sum(solve(eg.AllNodes(), jnp.sum).q ** 2)
    for save in (eg.FinalNode(), eg.AllNodes(), eg.EveryNode(7)):
        for cost in (lambda q: jnp.sum(q**2), lambda q: q @ q):
            # Coordinates, momenta, and the sum of squares.
            sums = carried(lambda save=save, cost=cost: solve(save, cost).cost)
            assert sums.count(5) == 3, save
            np.testing.assert_allclose(solve(save, cost).cost, expected, rtol=1e-5)


@pytest.mark.parametrize("sizes", [(2, 3), (1, 3)])
def test_sums_over_parts_of_unlike_shapes(sizes):
    """Both parts are acted on alike, by a sum and a factor; added up before that, a part of one would count thrice."""
    state = tuple(jnp.linspace(0.5, 2.0, n) for n in sizes)

    def step(k, state):
        return jax.tree.map(lambda x: 0.9 * x, state), 0.5 * (jnp.sum(state[0] ** 2) + jnp.sum(state[1] ** 2))

    np.testing.assert_allclose(summed(step, 4, state)[1], by_hand(step, 4, state)[1], rtol=1e-5)


def test_zero_and_numbers_beside_arrays():
    """Times zero is zero, whatever is multiplied: once it was not."""
    x = jnp.arange(3.0)
    _, total = summed(lambda k, y: (y, (0.0 * x, jnp.zeros(3) * 2.0, x * 1.0)), 4, x)
    for found, expected in zip(total, (0 * x, 0 * x, 4 * x), strict=True):
        np.testing.assert_array_equal(found, expected)
