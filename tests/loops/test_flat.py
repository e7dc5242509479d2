"""Programs written out flat compute the same, in fewer operations."""

import jax
import jax.numpy as jnp
import numpy as np

from echograd._loops._flat import flat, variables


def names(jaxpr):
    """Return the names of the operations that the results need."""
    needed, found = set(variables(jaxpr.outvars)), []
    for equation in reversed(jaxpr.eqns):
        if not needed.isdisjoint(equation.outvars):
            needed.update(variables(equation.invars))
            found.append(equation.primitive.name)
    return sorted(found)


def same(f, *arguments):
    """Check that a flat program computes the same, and return the names of its operations."""
    jaxpr, consts, tree = flat(f, *arguments)
    found = jax.tree.unflatten(tree, jax.core.eval_jaxpr(jaxpr, consts, *jax.tree.leaves(arguments)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, f(*arguments))
    return names(jaxpr)


def test_equal_operations_are_there_once_and_calls_are_written_out():
    def f(x):
        return jax.jit(jnp.exp)(x) + jnp.exp(x) * jnp.where(1.0 == 1.0, jax.jit(jnp.exp)(x), 2 * x)

    assert same(f, jnp.ones(3)) == ["add", "exp", "mul"]


def test_numbers_are_multiplied_with_what_stands_still():
    """Two products with what varies, and two before the loop."""
    a = jnp.asarray([1.0, -2.0, 3.0])
    assert same(lambda x: 2.0 * (a * (3.0 * -(x * (0.5 * x)))), a) == 4 * ["mul"]
    assert same(lambda x: 2.0 * jnp.sum(3.0 * jnp.sin(x)), a) == ["mul", "reduce_sum", "sin"]


def test_divisions_share_a_reciprocal():
    a, x = jnp.asarray([1.0, -2.0]), jnp.asarray([3.0, 0.5])
    found = same(lambda x: (a / x, jnp.exp(x) / x, x**-2, x / 3.0, 1.0 / x, x / a), x)
    assert found.count("div") == 0
    assert found.count("integer_pow") == 3  # 1 / x, its square, 1 / a
    whole = same(lambda n: (n / 2, n // jnp.asarray(2)), jnp.arange(5))
    assert "div" in whole  # of integers


def test_a_window_of_what_serves_for_a_whole_batch():
    """Batched beside unbatched: an axis of length 1, of which no window can be taken."""
    x, a = jnp.asarray([[1.0, -2.0, 0.5], [3.0, 0.2, -1.0]]), jnp.asarray([2.0, -3.0, 4.0])
    product = jax.vmap(lambda x, a: jnp.pad(x, 1) * (2 + jnp.pad(a, 1)), (0, None))
    assert same(lambda x: product(x, a)[:, 1:-1] + product(x, a)[:, 1:4], x).count("pad") == 1  # that of `a`
    same(lambda x: product(x, a)[1:, :3], x)


def test_zeros_are_not_added_and_times_zero_is_zero():
    x = jnp.asarray([1.0, -2.0])
    assert same(lambda x: x + jnp.zeros(2) - 2 * jnp.zeros(2), x) == []
    same(lambda x: (0.0 * x, 0.0 * jnp.ones(2), jnp.zeros(2) * x), x)


@jax.custom_jvp
def weighed(x, y):
    return jnp.where(x == 0, jnp.zeros_like(y), x * y)


weighed.defjvp(lambda primals, tangents: (weighed(*primals), tangents[0] + primals[0] * tangents[1]))


def test_a_rule_of_its_own_is_kept_but_for_constants():
    """Of what varies a derivative may be taken later, and it is not that of what is written."""
    x = jnp.asarray([1.0, -2.0])
    assert same(lambda x: x + weighed(0.0, jnp.zeros(2)), x) == []
    assert same(lambda x: x + weighed(0.0, x), x) == ["add", "custom_jvp_call"]


def test_a_window_does_not_show_the_padding_beyond_it():
    """The slope of a field between walls: the only padding that is left is that of the field."""

    def slope(q):
        return jax.grad(lambda q: sum(jnp.sum(jnp.diff(jnp.pad(q, 1), axis=i) ** 4) for i in (0, 1)))(q)

    q = jnp.sin(jnp.arange(30.0)).reshape(5, 6)
    plain = str(jax.make_jaxpr(slope)(q)).count("= pad[")
    found = same(slope, q)
    assert found.count("pad") == 1 < plain
    same(lambda q: jax.lax.pad(2 * jnp.pad(q, 1) + 1, 0.0, ((-1, 0, 0), (-2, 0, 0)))[1:4, :3], q)
    same(lambda q: jnp.exp(jnp.pad(q, ((0, 2), (3, 0))))[:, 2:] + jnp.pad(q[::2], ((3, 0), (1, 0))), q[:3])
