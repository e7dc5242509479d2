"""Equilibrium propagation equals implicit differentiation and backpropagation at the fixed point."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import echograd as eg
from cases import mixed, worst
from energies import CASES, coupled, hopfield

pytestmark = [pytest.mark.float64_only, pytest.mark.least_effort]


def loss(wanted, case, gradient, solver=None, throw=None):
    energy, inputs = wanted
    solver = case.solver if solver is None else solver
    throw = not isinstance(gradient, eg.Backprop) if throw is None else throw
    options = {"solver": solver, "bounds": case.bounds, "throw": throw}
    found = eg.equilibrium(energy, case.x0, inputs, gradient=gradient, **options)
    return mixed(found.state) + found.energy**2


def gradients(case, *objects):
    """Return one gradient for each object, from one compiled function."""
    f = eqx.filter_jit(lambda w: [eqx.filter_grad(loss)(w, case, *o) for o in objects])
    return f((case.energy, case.inputs))


@pytest.mark.parametrize("name", CASES)
def test_every_leaf_and_the_power_of_the_error(name):
    case = CASES[name]()

    @eqx.filter_jit
    def nudged(beta):
        finite = eg.EP(eg.Symmetric(beta)), eg.EP(eg.OneSided(beta))
        return [eqx.filter_grad(loss)((case.energy, case.inputs), case, ep, eg.Newton(), False) for ep in finite]

    implicit, *found = gradients(
        case, (eg.Implicit(), eg.Newton(), False), (eg.Backprop(),), (eg.Implicit(),), (eg.EP(),)
    )
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(implicit))
    assert max(worst(implicit, x) for x in found) < 1e-9

    betas = (4e-3, 2e-3, 1e-3)
    error = np.array([[worst(x, implicit) for x in nudged(jnp.asarray(b))] for b in betas])
    slopes = np.polyfit(np.log(betas), np.log(error), 1)[0]
    assert slopes[1] == pytest.approx(1, abs=0.15)
    if name == "clipped units":
        # In the box the response is linear and the product of two units quadratic: symmetric nudges are exact, as long
        # as they bring no unit to a bound.
        assert error[:, 0].max() < 1e-9
        assert worst(nudged(jnp.asarray(0.3))[0], implicit) > 1e-3
    else:
        assert slopes[0] == pytest.approx(2, abs=0.15)
    # The negative control of the symmetric nudge: at the same strength a single one errs far more.
    assert np.all(error[:, 1] > 5 * error[:, 0])


def test_nudges_of_high_order():
    expected, *found = gradients(
        coupled()._replace(solver=eg.Newton()),
        (eg.Implicit(),),
        (eg.EP(eg.Holomorphic(0.1, points=8)),),
        (eg.EP(eg.Holomorphic(1e-9, points=2)),),
        (eg.EP(eg.Richardson(0.02, order=4)),),
    )
    assert worst(found[0], expected) < 1e-6
    assert worst(found[1], expected) < 1e-9
    assert worst(found[2], expected) < 1e-5
    with pytest.raises(TypeError, match="not a holomorphic function"):
        gradients(hopfield("hard-sigmoid"), (eg.EP(eg.Holomorphic(0.1)),))


def test_batches_either_way_round():
    case = coupled()
    batch = jax.tree.map(lambda *x: jnp.stack(x), *(coupled(seed).inputs for seed in range(3)))

    @eqx.filter_jit
    def both(energy, batch):
        def total(w, gradient):
            energy, batch = w
            return jnp.sum(jax.vmap(lambda u: loss((energy, u), case, gradient))(batch))

        def each(gradient):
            return jax.vmap(lambda u: jax.grad(loss)((energy, u), case, gradient))(batch)

        return jax.grad(total)((energy, batch), eg.EP()), each(eg.EP(eg.Symmetric(1e-3))), each(eg.Implicit())

    outside, inside, expected = both(case.energy, batch)
    assert worst(inside, expected) < 1e-4
    assert worst(outside, (jax.tree.map(lambda x: jnp.sum(x, 0), expected[0]), expected[1])) < 1e-9


def test_a_batch_that_is_one_state():
    """Energies of copies add up, so that a network takes leading axes."""
    net, u = hopfield("hard-sigmoid")[:2]
    batch = jnp.stack([u, 0.5 * u, -u])

    def of(net, gradient):
        return mixed(net.rest(batch, gradient=gradient).state)

    def one_by_one(net):
        return mixed(jax.vmap(lambda x: net.rest(x, gradient=eg.Implicit()).state)(batch))

    found, expected = eqx.filter_jit(lambda n: (eqx.filter_grad(of)(n, eg.EP()), eqx.filter_grad(one_by_one)(n)))(net)
    assert worst(found, expected) < 1e-9


@pytest.mark.fast
def test_closed_over_arrays_get_their_gradients():
    def of(w, gradient):
        found = eg.equilibrium(
            lambda s, u: 0.5 * jnp.sum(jnp.cosh(s)) - jnp.sum(w * s), jnp.zeros(2), gradient=gradient
        )
        return mixed(found.state)

    w = jnp.asarray([0.4, -1.0])
    # The state is arcsinh(2 w).
    expected = jax.grad(lambda w: mixed(jnp.arcsinh(2 * w)))(w)
    for gradient in (eg.EP(), eg.Implicit()):
        assert worst(jax.jit(jax.grad(of), static_argnums=1)(w, gradient), expected) < 1e-9


def test_the_start_is_forgotten():
    case = coupled()

    def of(x0, gradient):
        return mixed(loss((case.energy, case.inputs), case._replace(x0=x0), gradient))

    for gradient in (eg.EP(), eg.Implicit()):
        assert all(not np.any(x) for x in jax.tree.leaves(jax.grad(of)(case.x0, gradient)))
    truncated = case._replace(solver=eg.Relaxation(0.1, max_steps=5))

    def cut(x0):
        found = eg.equilibrium(
            case.energy, x0, case.inputs, gradient=eg.Backprop(), solver=truncated.solver, throw=False
        )
        return mixed(found.state)

    assert all(np.all(x != 0) for x in jax.tree.leaves(jax.grad(cut)(case.x0)))


def test_implicit_differentiates_in_either_mode_and_twice():
    case = coupled()

    def of(k, gradient):
        energy = eqx.tree_at(lambda e: e.coupling["k"], case.energy, k)
        return loss((energy, case.inputs), case, gradient, eg.Newton())

    @jax.jit
    def all_of(k, step):
        modes = jax.jacfwd(of), jax.grad(of), jax.grad(jax.grad(of))
        physical = jax.vmap(jax.grad(of), (0, None))(k + jnp.stack([-step, step]), eg.EP())
        return *(mode(k, eg.Implicit()) for mode in modes), (physical[1] - physical[0]) / (2 * step)

    forward, backward, curvature, difference = all_of(0.3, 1e-4)
    assert np.isclose(forward, backward, rtol=1e-11)
    assert np.isclose(curvature, difference, rtol=1e-6)


def test_what_pushes_one_part_of_the_state_alone():
    """The force on the other part does not change, in either mode and with either solver."""

    def of(force, solver):
        found = eg.equilibrium(
            lambda s, u: 0.5 * jnp.sum((s["a"] - u) ** 2) + jnp.sum(jnp.cosh(s["b"] + jnp.sum(s["a"] ** 2))),
            {"a": jnp.zeros(2), "b": jnp.zeros(3)},
            force,
            gradient=eg.Implicit(),
            solver=solver,
        )
        return mixed(found.state)

    force = jnp.asarray([0.3, -0.5])
    # b settles at -|a|², where cosh has no slope, and a at the input.
    known = lambda u, _: mixed({"a": u, "b": jnp.full(3, -jnp.sum(u**2))})  # noqa: E731
    curvature = jax.jit(
        lambda u: [jax.hessian(f)(u, x) for f, x in ((known, 0), (of, eg.Relaxation()), (of, eg.Newton()))]
    )
    expected, *found = curvature(force)
    for hessian in found:
        assert np.allclose(hessian, expected, rtol=1e-9)


class Field(eqx.Module):
    """A vector field dressed up as an energy: its derivative is not symmetric."""

    matrix: jax.Array

    def __call__(self, s, u):
        @jax.custom_jvp
        def pretended(matrix, u, s):
            return 0.5 * jnp.sum(s**2)

        @pretended.defjvp
        def slope(primals, tangents):
            (matrix, u, s), (_, du, ds) = primals, tangents
            return pretended(matrix, u, s), jnp.sum((matrix @ s - u) * ds) - jnp.sum(s * du)

        return pretended(self.matrix, u, s)


@pytest.mark.fast
def test_an_asymmetric_field_is_no_energy():
    matrix = jnp.asarray([[1.0, 0.5], [-0.5, 1.5]])
    u = jnp.asarray([0.3, -0.2])

    def of(u, matrix, gradient, solver, throw=True):
        found = eg.equilibrium(Field(matrix), jnp.zeros(2), u, gradient=gradient, solver=solver, throw=throw)
        return mixed(found.state)

    def exact(u, matrix):
        return mixed(jnp.linalg.solve(matrix, u))

    expected = jax.grad(exact)(u, matrix)
    newton = eg.Newton()
    with pytest.raises(RuntimeError, match="not symmetric"):
        jax.grad(of)(u, matrix, eg.EP(), newton)
    with pytest.raises(RuntimeError, match=r"not symmetric|linear response"):
        jax.grad(of)(u, matrix, eg.Implicit(), eg.Relaxation())
    unheeded = jax.grad(of)(u, matrix, eg.EP(), newton, throw=False)
    assert worst(unheeded, expected) > 0.05
    assert worst(jax.grad(of)(u, matrix, eg.Implicit(), newton), expected) < 1e-9
    symmetric = 0.5 * (matrix + matrix.T)
    assert worst(jax.grad(of)(u, symmetric, eg.EP(), newton), jax.grad(exact)(u, symmetric)) < 1e-9


class Helmholtz(eqx.Module):
    """Re(½ uᵀ K u - fᵀ u) of real and imaginary parts, K complex: stationary, a saddle, where K u = f for K = Kᵀ."""

    real: jax.Array
    imaginary: jax.Array

    def __call__(self, s, f):
        u, f, medium = jax.lax.complex(*s), jax.lax.complex(*f), jax.lax.complex(self.real, self.imaginary)
        return 0.5 * jnp.real(u @ medium @ u) - jnp.real(f @ u)


def test_lossy_waves_of_one_frequency():
    """A driven, lossy, reciprocal medium, K = -ω² M + iω D + K₀: exact at any strength, since it is linear."""
    rng = np.random.default_rng(5)
    real, imaginary = (jnp.asarray(x + x.T) for x in rng.normal(size=(2, 4, 4)))
    f = jnp.asarray(rng.normal(size=(2, 4)))

    def direct(parts, f):
        u = jnp.linalg.solve(jax.lax.complex(*parts), jax.lax.complex(*f))
        return mixed((u.real, jnp.abs(u) ** 2))

    def rest(parts, f, gradient):
        s = eg.equilibrium(Helmholtz(*parts), jnp.zeros((2, 4)), f, solver=eg.Newton(), gradient=gradient).state
        return mixed((s[0], s[0] ** 2 + s[1] ** 2))

    exact = jax.jit(jax.grad(direct, (0, 1)))
    expected = exact((real, imaginary), f)
    expected = jax.tree.map(lambda g: 0.5 * (g + g.T), expected[0]), expected[1]
    found = jax.jit(lambda parts, beta: jax.grad(rest, (0, 1))(parts, f, eg.EP(eg.Symmetric(beta))))
    for beta in (0.1, 3.0):
        assert worst(found((real, imaginary), beta), expected) < 1e-9
    # A medium that is not reciprocal has no such energy: what the energy sees is its symmetric part, another medium.
    skew = jnp.asarray(rng.normal(size=(4, 4)))
    other = exact((real + 0.5 * (skew - skew.T), imaginary), f)
    assert worst(found((real + 0.5 * (skew - skew.T), imaginary), 0.1)[1], other[1]) > 0.05


def test_the_rest_that_an_overdamped_circuit_comes_to():
    """Run for long, its trajectory has the gradient of the state of rest; run for short, it has not."""
    between = jnp.asarray([[1.0, -1, 0], [0, 1, -1], [1, 0, -1]])

    def stiffness(g):
        return jnp.eye(3) + between.T @ (g[:, None] * between)

    @jax.jit
    @jax.grad
    def run(g, dt):
        circuit = eg.LinearDamped(None, jnp.asarray([1.0, 0.4, 2.0]), stiffness(g))
        start = eg.InitialValue(jnp.zeros(3), jnp.zeros(3))
        drive = jnp.broadcast_to(jnp.asarray([1.0, -0.3, 0.5]), (120, 3))
        return mixed(eg.solve(circuit, start, drive, dt=dt, save=eg.FinalNode(), gradient=eg.Reciprocal()).q)

    def rest(g):
        def energy(q, u):
            return 0.5 * q @ stiffness(g) @ q - u @ q

        return mixed(eg.equilibrium(energy, jnp.zeros(3), jnp.asarray([1.0, -0.3, 0.5]), solver=eg.Newton()).state)

    g = jnp.asarray([0.7, 0.5, 0.3])
    expected = jax.jit(jax.grad(rest))(g)
    assert worst(run(g, 0.5), expected) < 1e-9
    assert worst(run(g, 0.01), expected) > 1e-3
