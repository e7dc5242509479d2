"""Relaxations find states of rest, and say so when they do not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import echograd as eg

pytestmark = pytest.mark.least_effort

SOLVERS = [eg.Relaxation(), eg.Relaxation(0.2), eg.LayerwiseRelaxation(0.2), eg.Newton()]


def bowl(s, u):
    """Minimum where 2 a = u - b and b + b^3 = u - a."""
    return jnp.sum(s["a"] ** 2 + 0.5 * s["b"] ** 2 + 0.25 * s["b"] ** 4 + s["a"] * s["b"] - u * (s["a"] + s["b"]))


@pytest.mark.parametrize("bounds", [None, (-0.2, 0.7), (-np.inf, 0.7)], ids=str)
@pytest.mark.parametrize("solver", SOLVERS, ids=str)
def test_rest(solver, bounds):
    u = jnp.asarray([0.3, 1.7, -0.9])
    zero = jnp.zeros(3)
    found = eg.equilibrium(bowl, {"a": zero, "b": zero}, u, solver=solver, bounds=bounds)
    assert found.converged
    tolerance = float(jnp.finfo(u.dtype).eps) ** 0.75 * 1.7  # of the largest force at the start
    assert found.residual <= tolerance
    assert 0 < found.steps < 300
    force = jax.tree.map(lambda x: -x, jax.grad(bowl)(found.state, u))
    low, high = bounds or (-np.inf, np.inf)
    held = 0
    for x, f in zip(jax.tree.leaves(found.state), jax.tree.leaves(force), strict=True):
        # The condition of rest in a box: no force inside, only outward force at a bound.
        assert np.all((low <= x) & (x <= np.asarray(high, x.dtype)))
        assert np.all(np.where((x > low) & (x < np.asarray(high, x.dtype)), np.abs(f) <= tolerance, True))
        assert np.all(np.where(x == low, f <= tolerance, True))
        assert np.all(np.where(x == np.asarray(high, x.dtype), f >= -tolerance, True))
        held += np.sum((x == low) | (x == np.asarray(high, x.dtype)))
    assert (held > 0) == (bounds is not None)
    assert np.isclose(found.energy, bowl(found.state, u))


@pytest.mark.fast
def test_quadratic_layers_relax_exactly_one_after_another():
    """Of two layers without coupling each is at its minimum after one sweep of unit steps, in a box too."""
    target = jnp.asarray([0.5, 2.0])

    def energy(s, u):
        return sum(0.5 * jnp.sum((x - target) ** 2) for x in s)

    found = eg.equilibrium(energy, (target * 0, target * 0), solver=eg.LayerwiseRelaxation(), bounds=(0.0, 1.0))
    assert found.steps == 1
    np.testing.assert_array_equal(found.state[1], [0.5, 1.0])


def test_newton_converges_in_one_step_on_a_quadratic_energy():
    matrix = jnp.asarray([[2.0, 0.5], [0.5, 1.0]])
    found = eg.equilibrium(lambda s, u: 0.5 * s @ matrix @ s - u @ s, jnp.zeros(2), jnp.ones(2), solver=eg.Newton())
    assert found.steps == 1
    np.testing.assert_allclose(found.state, np.linalg.solve(matrix, np.ones(2)), rtol=1e-6)


def tilted(s, u):
    return jnp.sum(jnp.cosh(s)) - jnp.sum(u * s)


@pytest.mark.float64_only
@pytest.mark.parametrize(
    ("energy", "solver"),
    [
        (tilted, eg.Relaxation(1e-3, max_steps=20)),  # too few steps
        (tilted, eg.Relaxation(3.0, max_steps=100)),  # too long a step
        (tilted, eg.Newton(max_steps=1)),
        (lambda s, u: jnp.sum(u * s), eg.Relaxation(max_steps=100)),  # no minimum
        (lambda s, u: jnp.sum(jnp.log(s)), eg.Relaxation(0.1, max_steps=100)),  # infinite at the start
    ],
)
@pytest.mark.parametrize("gradient", [eg.EP(), eg.Implicit(), eg.Backprop()], ids=str)
def test_what_is_not_at_rest_is_refused(energy, solver, gradient):
    u = jnp.asarray([0.3, -0.7])
    with pytest.raises(RuntimeError, match=r"did not come to rest.*max_steps"):
        eg.equilibrium(energy, jnp.zeros(2), u, solver=solver, gradient=gradient)
    found = eg.equilibrium(energy, jnp.zeros(2), u, solver=solver, gradient=gradient, throw=False)
    assert not found.converged


def test_an_unfinished_free_phase_gives_no_gradient():
    def of(u, throw):
        solver = eg.Relaxation(1e-2, max_steps=20)
        return jnp.sum(eg.equilibrium(tilted, jnp.zeros(2), u, solver=solver, throw=throw).state ** 2)

    u = jnp.asarray([0.3, -0.7])
    with pytest.raises(RuntimeError, match="did not come to rest"):
        jax.jit(jax.grad(of), static_argnums=1)(u, True)
    exact = jax.grad(lambda u: jnp.sum(jnp.arcsinh(u) ** 2))(u)
    assert np.linalg.norm(jax.grad(of)(u, False) - exact) > 0.1 * np.linalg.norm(exact)


def test_a_flat_direction_has_no_response():
    def of(u, solver):
        found = eg.equilibrium(lambda s, u: jnp.sum((s[0] - s[1] - u) ** 2), jnp.zeros(2), u, solver=solver)
        return found.state[0]

    with pytest.raises(RuntimeError, match="flat direction"):
        jax.grad(of)(jnp.asarray(0.0), eg.Relaxation(0.1))
    with pytest.raises(RuntimeError, match="singular"):
        jax.grad(of)(jnp.asarray(0.0), eg.Newton())


@pytest.mark.float64_only
@pytest.mark.fast
@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: eg.Relaxation(0.0), "positive number"),
        (lambda: eg.Relaxation("fast"), "positive number"),
        (lambda: eg.LayerwiseRelaxation(-1.0), "positive number"),
        (lambda: eg.Newton(tolerance=-1.0), "at least 0"),
        (lambda: eg.Newton(tolerance=float("nan")), "at least 0"),
        (lambda: eg.Relaxation(max_steps=0), "integer of at least 1"),
        (lambda: eg.LayerwiseRelaxation(max_steps=2.0), "integer of at least 1"),
    ],
)
def test_limits_are_checked(make, complaint):
    with pytest.raises(ValueError, match=complaint):
        make()
