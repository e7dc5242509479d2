"""That an energy is even in the momentum may be told from its program, and nothing is told that is not so."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, strategies as st

import echograd as eg
from echograd.gradients._parity import is_even
from echograd.gradients._time_reversal import limit_of_oddness, oddness, readings_are_even
from echograd.integrators import StepInputs

pytestmark = pytest.mark.fast

M = jnp.asarray([[2.0, 0.5], [0.5, 1.0]])
ZERO = jnp.zeros(())

SHOWN = {
    "squares": lambda p: 0.5 * jnp.sum(p**2),
    "a metric": lambda p: p @ M @ p / 2,
    "a solve by hand": lambda p: jnp.sum((p / jnp.asarray([2.0, 3.0])) * p),
    "relativistic": lambda p: jnp.sqrt(1 + jnp.sum(p * p)),
    "even functions": lambda p: jnp.sum(jnp.cosh(p) + jnp.cos(p) + jnp.abs(p)),
    "a product of odd ones": lambda p: jnp.tanh(p[0]) * jnp.sin(p[1]) + p[0] ** 3 * p[1],
    "picked": lambda p: jnp.sum(p[jnp.asarray([1, 0])] * p),
    "called": jax.jit(lambda p: jnp.dot(p, p)),
    "by a fourier transform": lambda p: jnp.sum(jnp.abs(jnp.fft.fft(p)) ** 2),
    "nothing of it": lambda p: jnp.asarray(1.0),
}
NOT_SHOWN = {
    "a wind": lambda p: 0.5 * jnp.sum(p**2) + 0.1 * jnp.sum(p),
    # Not odd now, but its slope by the parameter is.
    "a wind of strength zero": lambda p: 0.5 * jnp.sum(p**2) + ZERO * jnp.sum(p),
    "a shift": lambda p: jnp.sum((p - 0.1) ** 2),
    "odd": lambda p: jnp.sum(p),
    "exponential": lambda p: jnp.sum(jnp.exp(p)),
    "a side": lambda p: jnp.sum(jnp.where(p > 0, p, 0.0)),
    "rounded": lambda p: jnp.sum(p.astype(jnp.int32).astype(p.dtype) ** 2) + jnp.sum(jnp.floor(p)),
    "beside the coordinates": lambda p: jnp.sum(jnp.concatenate([p, jnp.ones(2)]) ** 3),
    "out of a loop": lambda p: jax.lax.fori_loop(0, 3, lambda _, x: x + 0.1, p)[0] ** 2,
}


@pytest.mark.parametrize("name", SHOWN)
def test_what_is_even_is_seen(name):
    p = jnp.asarray([0.3, -0.7])
    assert is_even(SHOWN[name], p)
    assert SHOWN[name](p) == SHOWN[name](-p)


@pytest.mark.parametrize("name", NOT_SHOWN)
def test_what_is_not_is_not(name):
    assert not is_even(NOT_SHOWN[name], jnp.asarray([0.3, -0.7]))


UNARY = (jnp.sin, jnp.cos, jnp.tanh, jnp.abs, jnp.exp, jnp.negative, jnp.sign, lambda x: x**2, lambda x: x**3)
BINARY = (jnp.add, jnp.subtract, jnp.multiply, lambda x, y: x / (2 + y**2), lambda x, y: jnp.stack([x, y]).sum(0))


@given(st.lists(st.tuples(st.integers(0, len(UNARY) + len(BINARY) - 1), st.integers(0), st.integers(0)), max_size=8))
def test_programs_that_are_said_to_be_even_are(choices):
    def f(p):
        known = [p, p[::-1], jnp.asarray([0.7, -1.3])]
        for which, i, j in choices:
            x, y = known[i % len(known)], known[j % len(known)]
            known.append(UNARY[which](x) if which < len(UNARY) else BINARY[which - len(UNARY)](x, y))
        return jnp.sum(known[-1])

    p = jnp.asarray([0.3, -0.7])
    if is_even(f, p):
        np.testing.assert_array_equal(f(p), f(-p))


class Windy(eg.SeparableHamiltonian):
    wind: jax.Array

    def kinetic(self, t, p):
        return 0.5 * jnp.sum(p**2) + self.wind * jnp.sum(p)

    def potential(self, t, q, u):
        return 0.5 * jnp.sum(q**2)


class Reflected(eg.systems.FPUTChain):
    def mirror(self, x):
        return -x[::-1]


@pytest.mark.parametrize(
    ("system", "certain"),
    [(eg.systems.FPUTChain(), True), (Windy(jnp.zeros(())), False), (Reflected(), False)],
    ids=["FPUT", "a parameter that is odd", "a mirror"],
)
def test_nothing_is_probed_where_the_program_shows_it(system, certain):
    z0 = (jnp.ones(4), jnp.zeros(4))

    @jax.jit
    def both(system):
        given = StepInputs(system, None, jnp.asarray(0.1), jnp.asarray(0.0))
        answers = oddness(given, 3, z0), readings_are_even(given, jax.tree.map(lambda _: None, given), 3, z0)
        assert isinstance(answers[0], float) == certain
        return answers

    assert both(system)[0] <= limit_of_oddness(z0)
