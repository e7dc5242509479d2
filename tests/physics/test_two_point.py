"""Two-point boundary value problems against closed forms, scipy, and their own limits."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate

import echograd as eg
from cases import Oscillator
from echograd.two_point import _bordered

pytestmark = pytest.mark.least_effort


class Pendulum(eg.Lagrangian):
    gravity: jax.Array

    def __call__(self, t, q, v, u):
        return 0.5 * jnp.sum(v**2) + self.gravity * jnp.sum(jnp.cos(q))


@pytest.mark.float64_only
def test_the_linear_solver_against_a_dense_one(new_key):
    n, m = 7, 4
    steps = jax.random.normal(new_key(), (n, m, m))
    rows = jax.random.normal(new_key(), (m, 2 * m))
    r, rho = jax.random.normal(new_key(), (n, m)), jax.random.normal(new_key(), (m,))
    matrix = np.zeros(((n + 1) * m, (n + 1) * m))
    for k in range(n):
        matrix[k * m : (k + 1) * m, k * m : (k + 1) * m] = -steps[k]
        matrix[k * m : (k + 1) * m, (k + 1) * m : (k + 2) * m] = np.eye(m)
    matrix[n * m :, :m], matrix[n * m :, -m:] = rows[:, :m], rows[:, m:]
    expected = np.linalg.solve(matrix, np.concatenate([np.ravel(r), rho]))
    found = _bordered.solve(_bordered.factorise(steps, rows), r, rho)
    np.testing.assert_allclose(np.ravel(found), expected, rtol=1e-10)


@pytest.mark.float64_only
def test_the_linear_solver_survives_growth_that_a_product_would_not():
    """Modes growing and decaying by 10³ a step over 40 steps, tied at opposite ends: a product would span 10²⁴⁰."""
    steps = jnp.broadcast_to(jnp.diag(jnp.asarray([1e3, 1e-3])), (40, 2, 2))
    rows = jnp.asarray([[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]])  # the decaying one at 0, the growing one at N
    x = _bordered.solve(_bordered.factorise(steps, rows), jnp.zeros((40, 2)), jnp.asarray([2.0, 3.0]))
    np.testing.assert_allclose(x[0, 1], 2, rtol=1e-12)
    np.testing.assert_allclose(x[-1, 0], 3, rtol=1e-12)
    np.testing.assert_allclose(x[1, 1], 2e-3, rtol=1e-10)
    np.testing.assert_allclose(x[-2, 0], 3e-3, rtol=1e-10)


@pytest.mark.fast
@pytest.mark.float64_only
def test_an_oscillator_between_fixed_ends_in_closed_form():
    """Leapfrog turns by an angle w with cos w = 1 - h²k/2 per step, so q_k = (a sin((N-k)w) + b sin(kw)) / sin(Nw)."""
    h, n, a, b = 0.3, 12, 0.7, -0.4
    sol = eg.solve(Oscillator(jnp.asarray([1.3])), eg.FixedEnds(jnp.asarray([a]), jnp.asarray([b])), dt=h, steps=n)
    w, k = np.arccos(1 - h**2 * 1.3 / 2), np.arange(n + 1)
    np.testing.assert_allclose(sol.q[:, 0], (a * np.sin((n - k) * w) + b * np.sin(k * w)) / np.sin(n * w), atol=1e-12)
    assert sol.convergence.converged
    assert sol.convergence.residual < 1e-14


@pytest.mark.float64_only
def test_a_pendulum_against_scipy_at_second_order():
    duration, end, gravity = 2.0, 1.2, 1.7
    mesh = np.linspace(0, duration, 101)
    reference = scipy.integrate.solve_bvp(
        lambda t, y: np.stack([y[1], -gravity * np.sin(y[0])]),
        lambda a, b: np.array([a[0] - 0.3, b[0] - end]),
        mesh,
        np.stack([np.linspace(0.3, end, 101), np.full(101, 0.45)]),
        tol=1e-11,
        max_nodes=100_000,
    )
    assert reference.success
    errors = []
    for n in (20, 40):
        boundary = eg.FixedEnds(jnp.asarray([0.3]), jnp.asarray([end]))
        sol = eg.solve(Pendulum(jnp.asarray(gravity)), boundary, dt=duration / n, steps=n)
        errors.append(np.abs(np.asarray(sol.q[:, 0]) - reference.sol(np.asarray(sol.t))[0]).max())
    assert abs(np.log2(errors[0] / errors[1]) - 2) < 0.1


def test_a_driven_oscillator_finds_its_periodic_orbit():
    n, h = 20, 0.2
    drive = jnp.sin(2 * jnp.pi * jnp.linspace(0, 1, n, endpoint=False))

    class Driven(eg.SeparableHamiltonian):
        def kinetic(self, t, p):
            return 0.5 * jnp.sum(p**2)

        def potential(self, t, q, u):
            return jnp.sum(q**2) + jnp.sum(q**4) - u * q[0]

    sol = eg.solve(Driven(), eg.Periodic(), drive, dt=h, guess=(jnp.zeros(1), jnp.zeros(1)))
    scale = jnp.max(jnp.abs(sol.q))
    assert scale > 0.05
    assert jnp.abs(sol.q[-1, 0] - sol.q[0, 0]) < 1e-5 * scale
    again = eg.solve(Driven(), eg.InitialValue(sol.q[0], sol.p[0]), drive, dt=h)
    np.testing.assert_allclose(again.q, sol.q, atol=1e-4 * scale)


@pytest.mark.float64_only
def test_a_conjugate_point_is_reported_not_hidden():
    """After half a period all paths from one point meet again: fixed ends there determine nothing."""
    n = 16
    w = np.pi / n
    system, h = Oscillator(jnp.asarray([1.0])), 2 * np.sin(w / 2)
    ends = eg.FixedEnds(jnp.asarray([0.0]), jnp.asarray([0.0]))
    with pytest.raises(eqx.EquinoxRuntimeError, match="conjugate point"):
        eg.solve(system, ends, dt=h, steps=n, guess=(jnp.asarray([0.0]), jnp.asarray([0.5])))
    near = eg.solve(system, ends, dt=0.99 * h, steps=n)
    assert 1e-4 < near.convergence.transversality < 0.1


@pytest.mark.float64_only
def test_a_condition_that_no_path_meets_is_an_error():
    class Fast(eg.SeparableHamiltonian):  # the speed stays below 1
        def kinetic(self, t, p):
            return jnp.sum(jnp.sqrt(1 + p**2))

        def potential(self, t, q, u):
            return 0.0 * jnp.sum(q)

    ends = eg.FixedEnds(jnp.asarray([0.0]), jnp.asarray([2.0]))
    with pytest.raises(eqx.EquinoxRuntimeError, match="no free path was found"):
        eg.solve(Fast(), ends, dt=0.1, steps=10)
    sol = eg.solve(Fast(), ends, dt=0.1, steps=10, throw=False)
    assert not sol.convergence.converged


@pytest.mark.float64_only
@pytest.mark.fast
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"boundary": eg.Periodic(), "steps": 4}, ValueError, "guess"),
        ({"boundary": eg.FreeEnds(), "steps": 4}, ValueError, "guess"),
        ({"boundary": eg.FreeEnds(), "steps": 4, "guess": jnp.zeros(1)}, TypeError, "pair"),
        (
            {"boundary": eg.InitialValue(jnp.zeros(1), jnp.zeros(1)), "steps": 4, "solver": eg.TwoPointNewton()},
            ValueError,
            "run",
        ),
        ({"boundary": "fixed", "steps": 4}, TypeError, "FixedEnds"),
    ],
)
def test_wrong_use_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        eg.solve(Oscillator(jnp.ones(1)), dt=0.1, **arguments)


@pytest.mark.float64_only
def test_newton_wants_counts_and_a_tolerance():
    with pytest.raises(ValueError, match="continuation"):
        eg.TwoPointNewton(continuation=0)
    for tolerance in (-1.0, float("nan"), float("inf"), "small"):
        with pytest.raises(ValueError, match=r"tolerance=.*number of at least 0"):
            eg.TwoPointNewton(tolerance=tolerance)


@pytest.mark.float64_only
def test_several_solutions_are_all_reported():
    """A pendulum that is to be at the bottom again after more than a period: at rest, or swinging either way."""
    system, ends = Pendulum(jnp.asarray(1.0)), eg.FixedEnds(jnp.zeros(1), jnp.zeros(1))
    guesses = [(jnp.zeros(1), jnp.full(1, p)) for p in (-1.7, -1.6, 0.0, 1.6, 1.7)]
    paths = eg.solutions(system, ends, dt=0.2, steps=40, guesses=guesses)
    momenta = sorted(float(path.p[0, 0]) for path in paths)
    assert len(momenta) >= 3
    np.testing.assert_allclose(momenta, [-p for p in momenta[::-1]], atol=1e-9)
    for path in paths:
        again = eg.solve(system, eg.InitialValue(path.q[0], path.p[0]), dt=0.2, steps=40)
        assert abs(float(again.q[-1, 0])) < 1e-8
    with pytest.raises(ValueError, match="exactly one"):
        eg.solutions(system, eg.InitialValue(jnp.zeros(1), jnp.zeros(1)), dt=0.2, steps=4, guesses=[])
