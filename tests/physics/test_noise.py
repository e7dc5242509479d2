"""Driven by noise: exact where the echo meets the recorded noise, biased and scattered where it meets its own."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import echograd as eg
from cases import Chain, solve, worst
from echograd.gradients import AbstractNudgedGradient

pytestmark = [pytest.mark.float64_only, pytest.mark.least_effort]

STEPS, DT = 60, 0.1


class Pendulums(Chain):
    """A chain with a force that is not linear, driven at every mass."""

    def potential(self, t, q, u):
        return Chain.potential(self, t, q, jnp.zeros(())) - jnp.sum(jnp.cos(1.5 * q)) - jnp.sum(u * q)


class ShakenEcho(AbstractNudgedGradient):
    """An echo that meets other inputs than the free run did."""

    echo: eg.Echo
    disturbance: jax.Array

    @property
    def nudge(self):
        return self.echo.nudge

    def prepared(self, problem, z0):
        return self.echo.prepared(problem, z0)

    def read_run(self, wanted, rest, course, bar):
        rest = eqx.tree_at(lambda problem: problem.given.u, rest, rest.given.u + self.disturbance)
        return self.echo.read_run(wanted, rest, course, bar)

    def run_two_point(self, *arguments):
        raise NotImplementedError("This test rule disturbs initial-value problems only.")


SYSTEM = Pendulums(jnp.asarray([1.0, 2.0, 0.5]), jnp.asarray([1.0, 0.5, 0.7]))
NOISE = jax.random.normal(jax.random.key(0), (STEPS, 3)) / DT**0.5


def cost(params, gradient):
    system, amplitude = params
    start = eg.InitialValue(jnp.asarray([0.5, -0.8, 0.2]), jnp.asarray([0.0, 0.4, -0.1]))
    sol = solve(system, start, amplitude * NOISE, dt=DT, gradient=gradient, save=eg.FinalNode())
    return jnp.cos(sol.q[0] - 2 * sol.q[2])


def test_replayed_noise_gives_the_pathwise_gradient_of_system_and_amplitude():
    params = (SYSTEM, jnp.asarray(0.3))
    expected, found = (eqx.filter_grad(cost)(params, g) for g in (eg.Backprop(), eg.Echo()))
    assert worst(found, expected) < 1e-9


def test_independent_noise_gives_a_deviation_of_first_and_a_bias_of_second_order():
    def gradient(disturbance):
        shaken = ShakenEcho(eg.Echo(retrace_tolerance=float("inf")), disturbance)
        found = eqx.filter_grad(lambda system: cost((system, 0.3), shaken))(SYSTEM)
        return jnp.concatenate([found.mass, found.stiffness])

    gradients = jax.jit(jax.vmap(gradient))
    exact = np.asarray(gradients(jnp.zeros((1, STEPS, 3))))[0]
    expected = eqx.filter_grad(lambda system: cost((system, 0.3), eg.Backprop()))(SYSTEM)
    np.testing.assert_allclose(exact, jnp.concatenate([expected.mass, expected.stiffness]), rtol=1e-9)

    fresh = jax.random.normal(jax.random.key(1), (1024, STEPS, 3)) / DT**0.5
    bias, deviation = [], []
    for strength in (0.03, 0.06):
        # With every noise its opposite, so that what is linear in it drops out of the mean.
        pairs = np.stack([gradients(sign * strength * fresh) for sign in (1, -1)]) - exact
        bias.append(np.linalg.norm(pairs.mean((0, 1))) / np.linalg.norm(exact))
        deviation.append(np.sqrt((pairs**2).sum(-1).mean()) / np.linalg.norm(exact))
    assert np.log2(deviation[1] / deviation[0]) == pytest.approx(1, abs=0.15)
    assert np.log2(bias[1] / bias[0]) == pytest.approx(2, abs=0.3)
    assert bias[0] > 1e-5
    assert deviation[0] > 1e-2


def test_an_echo_in_other_noise_is_refused():
    """The retrace error is measured: what would be a biased gradient is not returned in silence."""
    shaken = ShakenEcho(eg.Echo(), 0.1 * NOISE[::-1])
    with pytest.raises(eqx.EquinoxRuntimeError, match="determined to a relative error"):
        eqx.filter_jit(eqx.filter_grad(lambda system: cost((system, 0.3), shaken)))(SYSTEM)
