"""Glep equals implicit differentiation under every boundary condition; the naive rule only where theorem 2 says so."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import echograd as eg
from cases import mixed, solve, worst
from echograd.boundary import End

pytestmark = [pytest.mark.float64_only, pytest.mark.least_effort]

STEPS = 8


class Bench(eg.SeparableHamiltonian):
    """Two anharmonic masses, driven, with explicit time."""

    mass: Array
    spring: Array

    def kinetic(self, t, p):
        return jnp.sum(p**2 / (2 * self.mass))

    def potential(self, t, q, u):
        return 0.5 * jnp.sum(self.spring * q**2) + 0.3 * jnp.sum(jnp.diff(q) ** 4) - u * q[0] * jnp.cos(t)


class Rotor(eg.Lagrangian):
    """Two coupled pendulums whose kinetic energy does not separate."""

    mass: Array
    length: Array

    def __call__(self, t, q, v, u):
        cross = self.mass[1] * v[0] * v[1] * jnp.cos(q[0] - q[1])
        return 0.5 * jnp.sum(self.mass * v**2) + 0.4 * cross + self.length * jnp.sum(jnp.cos(q)) + u * q[1]


class Charge(eg.Hamiltonian):
    """A charge in a magnetic field, without the mirror that would make it reversible."""

    field: Array

    def __call__(self, t, q, p, u):
        potential = 0.5 * self.field * jnp.stack([-q[1], q[0]])
        return 0.5 * jnp.sum((p - potential) ** 2) + 0.25 * jnp.sum(q**4) - u * q[0]


def problem(system, seed=0):
    """Data near a true path, so that every condition has one."""
    rng = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(0.5 * rng.normal(size=shape))  # noqa: E731
    u, h, t0 = draw(STEPS), jnp.asarray(0.2), jnp.asarray(0.3)
    q, p = draw(2), draw(2)
    path = eg.solve(system, eg.InitialValue(q, p), u, dt=h, t0=t0)
    return u, h, t0, (q, p), (path.q[-1] + 0.02, path.p[-1] - 0.01), draw


def conditions(start, stop, draw):
    (q0, p0), (qN, pN) = start, stop
    rows, a = draw(4, 8), draw(2, 2)
    skew, sym = a @ a.T + a, a + a.T
    return {
        "final": eg.FinalValue(qN, pN),
        "final velocity": eg.FinalValue(qN, v=0.5 * pN),
        "fixed": eg.FixedEnds(q0, qN),
        "free": eg.FreeEnds(p0, pN),
        "mixed": eg.MixedEnds(q0, pN),
        "periodic": eg.Periodic(),
        "symmetric robin": eg.Robin(sym, -sym, p0 - sym @ q0, pN + sym @ qN),
        "robin": eg.Robin(a, skew, p0 - a @ q0, pN - skew @ qN),
        "random": eg.LinearBoundary(rows, rows @ jnp.concatenate([q0, p0, qN, pN])),
    }


def loss(arguments, rule, start, throw=None):
    system, boundary, u, h, t0 = arguments
    guess = {} if isinstance(boundary, eg.InitialValue) else {"guess": start}
    sol = solve(
        system,
        boundary,
        u,
        dt=h,
        t0=t0,
        gradient=rule,
        cost=lambda t, q, p: jnp.sum(jnp.sin(q) * p) * jnp.cos(t),
        throw=throw,
        **guess,
    )
    return mixed((sol.q, sol.p, sol.t)) + sol.cost**2


@eqx.filter_jit
def gradient(arguments, start, rule, throw=None):
    """The gradient of a rule; shapes alone tell whether it is compiled again."""
    return eqx.filter_grad(loss)(arguments, rule, start, throw)


def compare(system, boundary, setting, *rules, throw=None):
    u, h, t0, start, _, _ = setting
    arguments = system, boundary, u, h, t0
    expected, *found = (gradient(arguments, start, rule, throw) for rule in (eg.Backprop(), *rules))
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(expected))
    return [worst(x, expected) for x in found]


def linear(boundary, system, setting):
    """The same condition as rows and data, so that all conditions share one compiled program."""
    u, h, t0, start, _, _ = setting
    ends = End(t0, u[0]), End(t0 + STEPS * h, u[-1])
    return eg.LinearBoundary(*boundary.rows(system, *ends, start[0]))


BENCH = Bench(jnp.asarray([1.0, 2.0]), jnp.asarray([1.0, 0.5]))


def test_every_condition():
    """Exact under the dual condition, always; under the same condition exactly where the defect is zero.

    The residual, by forward sensitivities, mends the naive rule everywhere.
    """
    setting = problem(BENCH)
    isotropic = 0
    for name, boundary in conditions(*setting[3:]).items():
        rules = eg.Glep(), eg.SameBoundary(), eg.SameBoundary(correct=True)
        dual, same, corrected = compare(BENCH, linear(boundary, BENCH, setting), setting, *rules)
        assert dual < 1e-9, name
        assert corrected < 1e-9, name
        if eg.defect(boundary, like=jnp.zeros(2)) < 1e-10:
            isotropic += 1
            assert same < 1e-9, name
        else:
            assert same > 1e-2, name
    assert isotropic == 5


@pytest.mark.fast
def test_the_data_of_a_named_condition_can_be_trained():
    setting = problem(BENCH)
    (dual,) = compare(BENCH, conditions(*setting[3:])["final velocity"], setting, eg.Glep())
    assert dual < 1e-9


def test_an_initial_value_nudged_from_the_same_start():
    setting = problem(BENCH)
    boundary = eg.InitialValue(*setting[3])
    rules = eg.Glep(), eg.SameBoundary(), eg.SameBoundary(correct=True)
    dual, same, corrected = compare(BENCH, boundary, setting, *rules)
    assert dual < 1e-9
    assert same > 0.1
    assert corrected < 1e-9


def test_finite_nudges_have_their_slope():
    setting = problem(BENCH)
    boundary = linear(conditions(*setting[3:])["robin"], BENCH, setting)
    rows = []
    for beta in (2e-3, 1e-3):
        beta = jnp.asarray(beta)
        nudged = eg.Glep(eg.Symmetric(beta)), eg.Glep(eg.OneSided(beta))
        rows.append(compare(BENCH, boundary, setting, *nudged, throw=False))
    slopes = np.log2(np.asarray(rows[0]) / np.asarray(rows[1]))
    np.testing.assert_allclose(slopes, [2, 1], atol=0.15)


def test_a_lagrangian_that_does_not_separate():
    system = Rotor(jnp.asarray([1.0, 0.7]), jnp.asarray(2.0))
    setting = problem(system)
    (q, _), (_, v) = setting[3:5]
    dual, echo = compare(system, eg.InitialValue(q, v=v), setting, eg.Glep(), eg.Echo())
    assert dual < 1e-9
    assert echo < 1e-9


def test_a_charge_that_is_not_reversible_runs_backward():
    system = Charge(jnp.asarray(0.8))
    setting = problem(system)
    u, h, _, start, _, _ = setting
    (dual,) = compare(system, conditions(*setting[3:])["robin"], setting, eg.Glep())
    assert dual < 1e-9

    def of(system):
        return jnp.sum(eg.solve(system, eg.InitialValue(*start), u, dt=h, gradient=eg.Echo()).q)

    with pytest.raises(eqx.EquinoxRuntimeError, match="not time-reversible"):
        eqx.filter_jit(eqx.filter_grad(of))(system)


def test_a_batch_of_boundary_problems():
    u, h, t0, start, stop, _ = problem(BENCH)
    ends = jnp.stack([stop[0], stop[0] + 0.1, stop[0] - 0.2])

    def total(arguments, rule):
        system, ends = arguments

        def one(end):
            return mixed(solve(system, eg.FixedEnds(start[0], end), u, dt=h, t0=t0, gradient=rule).q)

        return jnp.sum(jax.vmap(one)(ends))

    expected, found = (eqx.filter_jit(eqx.filter_grad(total))((BENCH, ends), r) for r in (eg.Backprop(), eg.Glep()))
    assert worst(found, expected) < 1e-9


def test_an_echo_is_refused_where_it_is_not_the_dual():
    u, h, _, start, stop, _ = problem(BENCH)
    with pytest.raises(TypeError, match="dual of an InitialValue"):
        eg.solve(BENCH, eg.FixedEnds(start[0], stop[0]), u, dt=h, gradient=eg.Echo())
