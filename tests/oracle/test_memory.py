"""An echo needs no memory that grows with the number of steps, beside what is handed in and asked for."""

import jax
import jax.numpy as jnp
import pytest

import echograd as eg

pytestmark = pytest.mark.least_effort

N = 8


def temporary(use, gradient, steps):
    """Return the bytes that a compiled gradient allocates beside its arguments and results."""
    chain = eg.systems.FPUTChain(*map(jnp.ones, (N, N + 1, N + 1, N + 1)))
    inputs, bars = jnp.zeros((steps, N)), jnp.ones((steps + 1, N))

    def solve(chain, inputs, save, cost=None):
        boundary = eg.InitialValue(*chain.start(N))
        return eg.solve(chain, boundary, inputs, dt=0.1, steps=steps, gradient=gradient, save=save, cost=cost)

    def ends(chain, inputs):
        return jnp.sum(solve(chain, inputs, eg.FinalNode(), lambda t, q, p: jnp.sum(q**2)).cost)

    if use == "a running cost":
        program = jax.jit(jax.grad(lambda chain: ends(chain, None))).lower(chain)
    elif use == "inputs":
        program = jax.jit(jax.grad(ends, (0, 1))).lower(chain, inputs)
    else:

        def pull(chain, bars):
            return jax.vjp(lambda chain: solve(chain, None, eg.AllNodes()).q, chain)[1](bars)

        program = jax.jit(pull).lower(chain, bars)
    return program.compile().memory_analysis().temp_size_in_bytes


@pytest.mark.float64_only
@pytest.mark.parametrize("use", ["a running cost", "inputs", "cotangents of all nodes"])
def test_the_memory_of_an_echo_is_flat_in_the_number_of_steps(use):
    node = 4 * N * jnp.zeros(()).dtype.itemsize  # coordinates and momenta, and their tangents
    growth = temporary(use, eg.Echo(), 5_000) - temporary(use, eg.Echo(), 1_000)
    assert growth < 100 * node
    if use == "inputs":  # the control
        assert temporary(use, eg.Backprop(), 5_000) - temporary(use, eg.Backprop(), 1_000) > 1_000 * node


def test_a_check_hangs_on_the_gradient_by_inputs_alone():
    """It gets to see but the first of them."""
    chain, strict = eg.systems.FPUTChain(), eg.Echo(retrace_tolerance=1e-30)

    def last(inputs):
        boundary = eg.InitialValue(*chain.start(N))
        return jnp.sum(eg.solve(chain, boundary, inputs, dt=0.1, gradient=strict, save=eg.FinalNode()).q ** 2)

    with pytest.raises(Exception, match="determined to a relative error"):
        jax.block_until_ready(jax.jit(jax.grad(last))(jnp.zeros((50, N))))
