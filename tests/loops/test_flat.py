"""Flat programs compute the same, with calls inlined and equal operations merged."""

import jax
import jax.numpy as jnp

from echograd._loops._flat import flat


def names(f, *arguments):
    """Return the names of the operations of the flat program."""
    return sorted(e.primitive.name for e in flat(jax.make_jaxpr(f)(*arguments)).eqns)


def test_equal_operations_are_merged_and_calls_inlined():
    def f(x):
        return jax.jit(jnp.exp)(x) + jnp.exp(x) * jax.jit(lambda x: 2 * jax.jit(jnp.exp)(x))(x)

    assert names(f, jnp.ones(3)) == ["add", "exp", "mul", "mul"]


def test_plus_and_minus_zero_are_not_merged():
    assert names(lambda x: (x * 0.0, x * -0.0, x * 0.0), jnp.ones(3)) == ["mul", "mul"]


@jax.custom_jvp
def weighed(x, y):
    return x * y


weighed.defjvp(lambda primals, tangents: (weighed(*primals), 3 * tangents[0]))


def test_custom_rules_effects_and_loops_are_kept():
    """A later derivative must be that of the custom rule, not of the function's body."""

    def f(x):
        jax.debug.print("{}", x)
        jax.debug.print("{}", x)
        return weighed(2.0, x) + jax.lax.fori_loop(0, 2, lambda i, x: x + x, x)

    found = names(f, jnp.asarray(1.0))
    assert found.count("custom_jvp_call") == found.count("scan") == 1
    assert sum("debug" in name for name in found) == 2
