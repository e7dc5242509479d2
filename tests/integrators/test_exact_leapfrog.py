"""Leapfrog in fixed point: reversed bit for bit, differentiated along the trajectory that was run."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import echograd as eg
from cases import Oscillator, machine, mixed, solve, worst
from echograd.integrators._grid import rounded

EXACT = eg.Leapfrog(exact=True)


class Fput(eg.SeparableHamiltonian):
    """A chain with quartic bonds, chaotic at this energy."""

    stiffness: jax.Array

    def kinetic(self, t, p):
        return 0.5 * jnp.sum(p**2)

    def potential(self, t, q, u):
        stretch = jnp.diff(q, prepend=0.0, append=0.0)
        return jnp.sum(self.stiffness * (0.5 * stretch**2 + 0.25 * stretch**4))


def chaos(masses=8):
    rng = np.random.default_rng(0)
    return Fput(jnp.ones(masses + 1)), *(jnp.asarray(rng.normal(size=masses)) for _ in range(2))


def run(args, steps, gradient=None, integrator=EXACT, throw=True):
    system, q, p = args
    return eg.solve(
        system,
        eg.InitialValue(q, p),
        dt=0.05,
        steps=steps,
        integrator=integrator,
        gradient=gradient,
        save=eg.FinalNode(),
        throw=throw,
    )


def loss(args, steps, gradient, integrator):
    sol = run(args, steps, gradient, integrator, throw=not isinstance(gradient, eg.Backprop))
    return jnp.sum(jnp.sin(sol.q) * sol.p)


@eqx.filter_jit
def gradient_of(args, steps, gradient, integrator=EXACT):
    found = eqx.filter_grad(lambda a: loss(a, steps, gradient, integrator))(args)
    return jnp.concatenate([jnp.ravel(x) for x in jax.tree.leaves(found)])


def difference(a, b):
    scale = jnp.max(jnp.abs(b))
    return float(jnp.linalg.norm((a - b) / scale) / jnp.linalg.norm(b / scale))


def test_a_million_steps_of_a_chaotic_chain_are_undone_bit_for_bit():
    system, q, p = chaos()
    start = eg.InitialValue(q, p)
    assert float(eg.retrace_error(system, start, dt=0.05, steps=1_000_000, integrator=EXACT)) == 0
    assert float(eg.retrace_error(system, start, dt=0.05, steps=20_000)) > 0.1


@pytest.mark.fast
def test_the_final_state_flipped_is_a_start_that_leads_back():
    """The loop has no hidden state besides the one that the user sees."""
    system, q, p = chaos()
    bits = {"float32": 18, "float64": 44}[str(q.dtype)]
    integrator = eg.Leapfrog(exact=True, bits=bits)
    there = run((system, q, p), 100_000, integrator=integrator)
    assert float(jnp.max(jnp.abs(there.q - q))) > 0.1
    back = run((system, there.q, -there.p), 100_000, integrator=integrator)
    np.testing.assert_array_equal(back.q, jnp.round(q * 2.0**bits) / 2.0**bits)
    np.testing.assert_array_equal(-back.p, jnp.round(p * 2.0**bits) / 2.0**bits)


@pytest.mark.float64_only
def test_the_gradient_is_that_of_the_rounded_path():
    args = chaos()
    steps = 1500
    expected = gradient_of(args, steps, eg.Backprop(checkpoints=40))
    assert difference(gradient_of(args, steps, eg.Echo()), expected) < 1e-9


def test_at_a_chaotic_length_the_exact_echo_differentiates_the_path_and_others_are_refused():
    args, steps = chaos(16), {"float32": 2000, "float64": 5500}[str(jnp.zeros(()).dtype)]
    echo = eg.Echo(retrace_tolerance=float("inf"))
    expected = gradient_of(args, steps, eg.Backprop(checkpoints=40))
    rounding = 1e3 * float(jnp.finfo(expected.dtype).eps) * steps**0.5
    assert difference(gradient_of(args, steps, echo), expected) < rounding
    for gradient in (eg.Echo(), eg.Glep()):
        with pytest.raises(eqx.EquinoxRuntimeError, match=r"determined to a relative error of \d\S* only"):
            gradient_of(args, steps, gradient, eg.Leapfrog())


@pytest.mark.float64_only
def test_a_path_that_is_nearly_retraced_is_refused_in_float64():
    """A loss that is accepted in float32 raises in float64, and the estimate bounds the error."""
    args, steps, plain = chaos(16), 2800, eg.Leapfrog()
    expected = gradient_of(args, steps, eg.Backprop(checkpoints=40), plain)
    found = gradient_of(args, steps, eg.Echo(retrace_tolerance=0.1), plain)
    assert difference(found, expected) < 0.1
    for gradient in (eg.Echo(), eg.Glep()):
        with pytest.raises(eqx.EquinoxRuntimeError, match="more than retrace_tolerance=1e-09"):
            gradient_of(args, steps, gradient, plain)


@pytest.mark.float64_only
def test_everything_that_a_system_can_have():
    """A PyTree state, inputs, explicit time, a relativistic kinetic energy: every leaf, in a batch, to the last bit."""
    points = [machine(seed=i)._replace(cost=None, closed_over=None) for i in range(2)]
    batch = jax.tree.map(lambda *x: jnp.stack(x), *points)

    def of(point, gradient):
        sol = solve(
            point.system,
            eg.InitialValue(point.q, point.p),
            point.inputs,
            dt=point.dt,
            t0=point.t0,
            integrator=EXACT,
            gradient=gradient,
            cost=lambda t, q, p: jnp.sum(q["a"] ** 2 * jnp.cos(t)),
        )
        return mixed((sol.q, sol.p)) + sol.cost

    @jax.jit
    def both(batch):
        return [jax.vmap(jax.grad(lambda x, g=g: of(x, g)))(batch) for g in (eg.Backprop(), eg.Echo())]

    expected, found = both(batch)
    assert worst(found, expected) < 1e-9


@pytest.mark.float64_only
def test_the_rounded_path_is_the_path_but_for_the_grid():
    args = chaos()
    coarse, fine = (run(args, 200, integrator=eg.Leapfrog(exact=True, bits=bits)).q for bits in (20, 30))
    plain = run(args, 200, integrator=eg.Leapfrog()).q
    errors = [float(jnp.max(jnp.abs(q - plain))) for q in (coarse, fine)]
    assert 1e-6 < errors[0] < 1e-4
    assert errors[1] < errors[0] / 200
    assert float(jnp.max(jnp.abs(run(args, 200).q - plain))) < 1e-10


@eqx.filter_jit
def oscillation(q, p, bits, angle, throw=True):
    """Run an oscillator of frequency 1/16 by an angle; return the end and its derivative with respect to `q`."""

    def final(q):
        sol = eg.solve(
            Oscillator(jnp.asarray(1 / 256)),
            eg.InitialValue(q, p),
            dt=0.5,
            steps=round(32 * angle),
            integrator=eg.Leapfrog(exact=True, bits=bits),
            save=eg.FinalNode(),
            throw=throw,
        )
        return sol.q

    return jax.value_and_grad(final)(q)


def test_a_state_that_outgrows_the_grid_is_seen():
    bits = jnp.finfo(jnp.zeros(()).dtype).nmant - 3  # a range of 8
    q, p = jnp.asarray(0.1), jnp.asarray(0.4)
    value, derivative = oscillation(q, p, bits, np.pi / 2)
    assert float(value) == pytest.approx(0.4 * 16, rel=0.01)
    assert float(derivative) == pytest.approx(0, abs=0.05)
    for angle in (np.pi / 2, np.pi):  # at the end, or only on the way
        with pytest.raises(eqx.EquinoxRuntimeError, match="outgrown the fixed-point range"):
            oscillation(q, 2 * p, bits, angle)
    # Without the check it does not wrap around.
    assert np.isnan(oscillation(q, 2 * p, bits, np.pi, throw=False)[0])
    assert float(oscillation(q, 2 * p, bits - 1, np.pi)[0]) == pytest.approx(-0.1, abs=0.2)


def test_a_grid_coarser_than_the_state_is_refused():
    q, p = jnp.asarray(0.1), jnp.asarray(0.4)
    with pytest.raises(eqx.EquinoxRuntimeError, match="smaller than 16 spacings of the fixed-point grid"):
        oscillation(q, p, 5, np.pi)
    assert np.isfinite(oscillation(q, p, 6, np.pi)[0])
    assert np.isfinite(oscillation(0 * q, 0 * p, 5, np.pi)[0])  # at rest there is nothing to lose


def test_rounding_is_one_operation():
    """Adding and subtracting a large constant would round as well, but some compilers cancel the two."""
    program = str(jax.make_jaxpr(lambda x: rounded(x, jnp.asarray(0.25)))(jnp.asarray(0.3)))
    assert " round[" in program
    assert float(rounded(jnp.asarray(0.3), jnp.asarray(0.25))) == 0.25


class Leaning(Fput):
    """A chain whose kinetic energy has a part odd in the momentum that is below rounding."""

    def kinetic(self, t, p):
        return 0.5 * jnp.sum(p**2) + 100 * jnp.finfo(p.dtype).eps * jnp.sum(p)


@pytest.mark.fast
def test_an_energy_that_is_even_but_for_rounding_is_retraced_bit_for_bit():
    """Its program does not prove that it is even, so the echo runs by the inverse map."""
    system, q, p = chaos()
    args = Leaning(system.stiffness), q, p
    expected, found = (gradient_of(args, 200, gradient) for gradient in (eg.Backprop(), eg.Echo()))
    assert difference(found, expected) < 1e3 * float(jnp.finfo(expected.dtype).eps)


def test_a_gradient_that_overflows_is_refused():
    with pytest.raises(eqx.EquinoxRuntimeError, match="its gradient is not"):
        gradient_of(chaos(16), {"float32": 40_000, "float64": 200_000}[str(jnp.zeros(()).dtype)], eg.Echo())


def test_a_grid_needs_a_size():
    def rest(integrator):
        start = eg.InitialValue(jnp.zeros(2), jnp.zeros(2))
        return eg.solve(Oscillator(jnp.ones(2)), start, dt=0.1, steps=3, integrator=integrator).q

    with pytest.raises(eqx.EquinoxRuntimeError, match="Pass bits"):
        rest(EXACT)
    assert not jnp.any(rest(eg.Leapfrog(exact=True, bits=10)))


@pytest.mark.parametrize(("q", "p"), [(1.0, 0.0), (0.0, 1.0), (1e-9, 0.0), (0.0, 1e9)])
def test_the_grid_fits_a_start_from_rest_or_from_the_middle(q, p):
    """Over one period, the coordinate or momentum that was zero at the start fits the grid and has its digits."""
    start = eg.InitialValue(jnp.asarray([q]), jnp.asarray([p]))
    system = Oscillator(jnp.asarray(1e4))
    exact, plain = (
        eg.solve(system, start, dt=1e-4, steps=157, integrator=i, save=eg.FinalNode()) for i in (EXACT, eg.Leapfrog())
    )
    tolerance = {"float32": 1e-3, "float64": 1e-10}[str(exact.q.dtype)]
    np.testing.assert_allclose(exact.q, plain.q, atol=tolerance * max(q, p / 100), rtol=tolerance)
    np.testing.assert_allclose(exact.p, plain.p, atol=tolerance * max(100 * q, p), rtol=tolerance)


@pytest.mark.parametrize("bits", [1.5, True, "many"])
def test_misuse_is_refused_at_once(bits):
    with pytest.raises(ValueError, match="number of binary digits"):
        eg.Leapfrog(exact=True, bits=bits)


def test_bits_need_exact():
    with pytest.raises(ValueError, match="exact=True"):
        eg.Leapfrog(bits=20)


def test_two_point_problems_are_not_in_fixed_point():
    ends = eg.FixedEnds(jnp.zeros(2), jnp.ones(2))
    with pytest.raises(ValueError, match="InitialValue"):
        eg.solve(Oscillator(jnp.ones(2)), ends, dt=0.1, steps=3, integrator=EXACT)
