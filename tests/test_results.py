"""With `throw=False` a trajectory says whether its run was sound, for each member of a batch."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from jaxtyping import Array

import echograd as eg

pytestmark = pytest.mark.least_effort


class Oscillator(eg.SeparableHamiltonian):
    stiffness: Array

    def kinetic(self, t, p):
        return 0.5 * jnp.sum(p**2)

    def potential(self, t, q, u):
        return 0.5 * self.stiffness * jnp.sum(q**2)


class Morse(eg.SeparableHamiltonian):
    """Soft where the path starts, stiff where it goes."""

    def kinetic(self, t, p):
        return jnp.sum(p**2) / 2

    def potential(self, t, q, u):
        return jnp.sum(20 * (jnp.exp(-4 * q) - 2 * jnp.exp(-2 * q)))


START = eg.InitialValue(jnp.ones(1), jnp.zeros(1))


def run(stiffness, **options):
    system = Oscillator(jnp.asarray(stiffness, float))
    return eg.solve(system, START, **{"dt": 0.1, "steps": 20, "throw": False} | options)


def test_a_sound_run_is_successful():
    for throw in (True, False):
        assert run(1.0, throw=throw).result == eg.RESULTS.successful


def test_each_member_of_a_batch_has_its_result():
    found = jax.vmap(run)(jnp.asarray([1.0, 500.0, jnp.nan, 2.0])).result
    assert (found == eg.RESULTS.unstable_step).tolist() == [False, True, False, False]
    assert (found == eg.RESULTS.not_finite).tolist() == [False, False, True, False]
    assert (found == eg.RESULTS.successful).tolist() == [True, False, False, True]


OSCILLATOR = {"system": Oscillator(jnp.asarray(1.0)), "boundary": START}
BLOWN = {"system": Morse(), "boundary": eg.InitialValue(jnp.full(1, 1.5), -jnp.ones(1)), "dt": 0.3, "steps": 40}
RUNS = {
    "unstable_step": ({**OSCILLATOR, "system": Oscillator(jnp.asarray(500.0))}, "the step is unstable"),
    "coarse_clock": ({**OSCILLATOR, "t0": 1e16}, "the spacing"),
    "not_finite": ({**OSCILLATOR, "system": Oscillator(jnp.asarray(jnp.inf))}, "not finite"),
    "blown_up": (BLOWN, "blown up"),
}


@pytest.mark.parametrize("name", RUNS)
def test_what_is_raised_is_what_is_returned(name):
    problem, message = RUNS[name]
    arguments = {"dt": 0.1, "steps": 20} | problem
    assert eg.solve(**arguments, throw=False).result == getattr(eg.RESULTS, name)
    with pytest.raises(eg.RunError, match=message):
        eg.solve(**arguments)


def test_a_two_point_problem_without_a_unique_path():
    """After half a period every path from q meets -q again: a conjugate point."""
    one = jnp.ones(1)
    steps = 20
    dt = 2 * jnp.sin(jnp.pi / steps / 2)  # the discrete motion turns by pi in 20 steps
    boundary = eg.FixedEnds(one, -one)
    found = eg.solve(Oscillator(jnp.asarray(1.0)), boundary, dt=dt, steps=steps, throw=False).result
    assert found == eg.RESULTS.conjugate_point
    impossible = eg.FixedEnds(one, one)
    found = eg.solve(Oscillator(jnp.asarray(1.0)), impossible, dt=dt, steps=steps, throw=False).result
    assert found != eg.RESULTS.successful


def test_a_result_passes_through_jit_and_gradients():
    @eqx.filter_jit
    def loss(system):
        sol = eg.solve(system, START, dt=0.1, steps=20, throw=False)
        return jnp.sum(sol.q**2), sol.result

    (_, result), gradient = eqx.filter_value_and_grad(loss, has_aux=True)(Oscillator(jnp.asarray(1.0)))
    assert result == eg.RESULTS.successful
    assert jnp.isfinite(gradient.stiffness)


def test_a_run_time_error_is_one_sentence_of_our_own():
    with pytest.raises(eg.EchogradError) as caught:
        run(500.0, throw=True)
    assert str(caught.value).startswith("solve: the step is unstable.")
    assert "stack" not in str(caught.value)


def test_gradients_and_compiled_functions_can_have_plain_errors():
    def loss(stiffness):
        return jnp.sum(jnp.abs(run(stiffness, throw=True).q - 1.0) ** 1.5)

    with pytest.raises(eg.RunError, match=r"^solve: the step is unstable"), eg.plain_errors():
        jax.jit(jax.grad(loss))(500.0)


def test_other_errors_pass_plain_errors_as_they_are():
    with pytest.raises(ZeroDivisionError), eg.plain_errors():
        1 / 0  # noqa: B018
    with pytest.raises(eg.ArgumentError, match="dt"), eg.plain_errors():
        run(1.0, dt=-1.0)
