"""Shared operations are computed once, and results do not change."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxpr_as_fun

import echograd as eg
from echograd._loops._share import rearranged


def once(f):
    """Return `f` rearranged like the body of a loop."""

    def arranged(*arguments):
        closed, shape = jax.make_jaxpr(f, return_shape=True)(*arguments)
        found = jaxpr_as_fun(rearranged(closed))(*jax.tree.leaves(arguments))
        return jax.tree.unflatten(jax.tree.structure(shape), found)

    return arranged


on_cpu = pytest.mark.skipif(
    jax.default_backend() != "cpu" or jax.__version_info__ < (0, 11),
    reason="loop bodies are rearranged on CPUs only, and compilers before jax 0.11 undo it",
)


@jax.custom_jvp
def guarded(x):
    return jnp.log(jnp.where(x > 0, x, 1.0))


guarded.defjvp(lambda primals, tangents: (guarded(*primals), tangents[0] / primals[0]))


def everything(x, k, tree):
    """Use a padded, shifted, looping, branching, integer-carrying tangle of operations."""
    padded = jnp.pad(x, (2, 1)) + jnp.pad(x, (0, 3), constant_values=1.5) + jax.lax.pad(x, 0.5, [(-1, 0, 1)])[:9]
    looped = jax.lax.fori_loop(0, 3, lambda i, y: jnp.sin(y) + jnp.diff(jnp.pad(y, (1, 0))), x)
    branched = jax.lax.cond(k > 2, jnp.exp, jnp.cos, x)
    inner = jax.jit(lambda x: {"a": jnp.tanh(x) * guarded(x), "b": x[1:] - x[:-1]})(x)
    return (padded, looped, branched, k + 1), inner, tree["b"] ** tree["c"], jnp.eye(2), 3.0


def test_the_numbers_are_the_same():
    x, k = jnp.linspace(0.3, 2.0, 6), jnp.asarray(3)
    tree = {"b": x[:2], "c": jnp.asarray(1.3)}
    for transform in (lambda f: f, jax.jit):
        expected, found = transform(everything)(x, k, tree), transform(once(everything))(x, k, tree)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(b, a, rtol=1e-6), expected, found)
        assert jax.tree.structure(expected) == jax.tree.structure(found)
    batch = jax.vmap(once(everything), (0, None, None))(jnp.stack([x, 2 * x]), k, tree)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[1], b, rtol=1e-6), batch[0], everything(2 * x, k, tree)[0])


@pytest.mark.parametrize("rows", [3, 3000])
def test_padding_on_every_side(rows):
    """Short arrays are padded by copies, long ones by the compiler."""
    x = jnp.arange(2.0 * rows).reshape(rows, 2) + 1
    for widths in ([(0, 0), (1, 2)], [(2, 0), (0, 1)], [(0, 0), (0, 0)], [(1, -1), (0, 0)]):
        f = lambda x, widths=widths: jax.lax.pad(x, jnp.asarray(7, x.dtype), [(*w, 0) for w in widths])  # noqa: E731
        np.testing.assert_array_equal(jax.jit(once(f))(x), f(x))


def sines(f, *arguments):
    """Count sines and cosines: those of XLA, and ours, each of which rounds once to quarter turns."""
    return len(re.findall(r" (?:co)?sine\(| round-nearest-even\(", jax.jit(f).lower(*arguments).compile().as_text()))


@on_cpu
def test_a_sine_that_three_readings_share_is_computed_once():
    """The negative control is the same loop, not rearranged."""
    x = jnp.ones(64)

    def body(_, carry):
        y, (a, b) = carry
        sine = jnp.sin(y)
        return y + 0.1 * sine, (a + sine * y, b + sine**2)

    def loop(body):
        return lambda x: jax.lax.fori_loop(0, 9, body, (x, (x, x)))

    assert sines(loop(body), x) > 1
    assert sines(loop(once(body)), x) == 1


@on_cpu
def test_a_sine_and_a_cosine_are_computed_together():
    x = jnp.linspace(-9.0, 9.0, 64)

    def turned(x):
        sine, cosine = jnp.sin(x), jnp.cos(x)
        return (jnp.sin(x + 1), jnp.exp(sine) * cosine, sine - cosine, jnp.cos(x**2))

    assert sines(once(turned), x) == 3
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), once(turned)(x), turned(x))


@on_cpu
def test_an_echo_computes_the_force_of_a_pendulum_once():
    """One sine forward, and one with its cosine in the echo, also if all four parameters are read."""
    q, p = eg.systems.PendulumChain().start(n=5)

    def cost(system):
        start = eg.InitialValue(q, p)
        return eg.solve(
            system, start, dt=0.1, steps=50, save=eg.FinalNode(), cost=lambda t, q, p: jnp.sum(q**2), throw=False
        ).cost

    assert sines(jax.grad(cost), eg.systems.PendulumChain(mass=jnp.ones(5), length=jnp.ones(5))) == 2
