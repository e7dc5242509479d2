"""Loops over large arrays run on all cores of a CPU and return the same numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from echograd._loops._cores import on_all_cores

LARGE = (1 << 20) // 4  # numbers of four bytes


def body(k, carry):
    x, n = carry
    return x + 0.1 * jnp.roll(x, 1) * k.astype(x.dtype), n + k


@pytest.mark.parametrize("size", [8, LARGE])
def test_the_numbers_are_those_of_a_plain_loop(size):
    start = jnp.linspace(-1.0, 1.0, size), jnp.asarray(1, jnp.int32)

    def run(loop, x):
        return loop(jnp.asarray(0, jnp.int32), jnp.asarray(5, jnp.int32), body, (x, start[1]))

    def ours(x):
        return run(on_all_cores, x)

    def plain(x):
        return run(jax.lax.fori_loop, x)

    same = lambda a, b: jax.tree.map(np.testing.assert_array_equal, a, b)  # noqa: E731
    same(jax.jit(ours)(start[0]), jax.jit(plain)(start[0]))
    tangents = [jax.jit(lambda x, f=f: jax.jvp(lambda x: f(x)[0], (x,), (x,)))(start[0]) for f in (ours, plain)]
    same(*tangents)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the dummy product is added on CPUs only")
@pytest.mark.parametrize(("size", "alone"), [(8, True), (LARGE - 1, True), (LARGE, False)])
def test_only_loops_over_large_arrays_get_a_dummy_product(size, alone):
    start = jnp.ones(size, jnp.float32), jnp.asarray(1, jnp.int32)
    program = jax.jit(lambda carry: on_all_cores(jnp.asarray(0), jnp.asarray(5), body, carry)).lower(start).compile()
    (loop,) = (line for line in program.as_text().splitlines() if " while(" in line)
    assert ("f32[8,8]" not in loop) == alone
