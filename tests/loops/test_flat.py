"""Programs written out flat are the same programs, with every operation there once."""

import jax
import jax.numpy as jnp

from echograd._loops._flat import flat


def names(f, *arguments):
    """Return the names of the operations of a flat program."""
    return sorted(e.primitive.name for e in flat(jax.make_jaxpr(f)(*arguments)).eqns)


def test_equal_operations_are_there_once_and_calls_are_written_out():
    def f(x):
        return jax.jit(jnp.exp)(x) + jnp.exp(x) * jax.jit(lambda x: 2 * jax.jit(jnp.exp)(x))(x)

    assert names(f, jnp.ones(3)) == ["add", "exp", "mul", "mul"]


def test_numbers_that_differ_in_nothing_but_the_sign_of_zero_are_two():
    assert names(lambda x: (x * 0.0, x * -0.0, x * 0.0), jnp.ones(3)) == ["mul", "mul"]


@jax.custom_jvp
def weighed(x, y):
    return x * y


weighed.defjvp(lambda primals, tangents: (weighed(*primals), 3 * tangents[0]))


def test_a_rule_of_its_own_an_effect_and_a_loop_are_kept():
    """Of what varies a derivative may be taken later, and it is not that of what is written."""

    def f(x):
        jax.debug.print("{}", x)
        jax.debug.print("{}", x)
        return weighed(2.0, x) + jax.lax.fori_loop(0, 2, lambda i, x: x + x, x)

    found = names(f, jnp.asarray(1.0))
    assert found.count("custom_jvp_call") == found.count("scan") == 1
    assert sum("debug" in name for name in found) == 2
