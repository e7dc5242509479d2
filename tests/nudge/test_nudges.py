"""Finite nudges: their orders, their error estimates, and their errors."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import echograd as eg
from cases import Cost, machine, mixed, solve

pytestmark = pytest.mark.least_effort

STEPS = 40


class Cubic(eg.SeparableHamiltonian):
    """A chain with cubic forces."""

    stiffness: jax.Array
    cubic: jax.Array

    def kinetic(self, t, p):
        return 0.5 * jnp.sum(p**2)

    def potential(self, t, q, u):
        stretch = jnp.diff(q, prepend=0.0, append=0.0)
        return jnp.sum(0.5 * self.stiffness * stretch**2 + 0.25 * self.cubic * stretch**4) - u * q[0]


def arguments(system=Cubic):
    rng = np.random.default_rng(0)
    start = [jnp.asarray(0.6 * rng.normal(size=6)) for _ in range(2)]
    return (
        system(jnp.asarray(1 + 0.1 * rng.normal(size=7)), jnp.full(7, 0.3)),
        *start,
        jnp.asarray(rng.normal(size=STEPS)),
    )


def loss(args, gradient, throw=None):
    system, q, p, u = args
    sol = solve(
        system,
        eg.InitialValue(q, p),
        u,
        dt=0.08,
        gradient=gradient,
        save=eg.EveryNode(STEPS // 4),
        cost=lambda t, q, p: 2e-3 * jnp.sum(q**2 * p**2),
        throw=throw,
    )
    return jnp.sum(jnp.sin(sol.q[-1])) + 0.3 * jnp.sum(sol.p[2] ** 2) + sol.cost


def unchecked(args, gradient):
    return loss(args, gradient, throw=False)


@eqx.filter_jit
def gradient_of(loss, args, gradient):
    found = eqx.filter_grad(loss)(args, gradient)
    return jnp.concatenate([jnp.ravel(x) for x in jax.tree.leaves(found)])


@pytest.fixture(scope="module")
def exact():
    return gradient_of(loss, arguments(), eg.Backprop())


def error(nudge, exact, args=None, loss=loss):
    found = gradient_of(loss, arguments() if args is None else args, eg.Echo(nudge))
    return float(jnp.linalg.norm(found - exact) / jnp.linalg.norm(exact))


SCHEMES = {
    "order 4": (lambda b: eg.Richardson(b, 4), 4, 0.2),
    "order 6": (lambda b: eg.Richardson(b, 6), 6, 0.2),
    "points: 4": (lambda b: eg.Holomorphic(b, 4), 4, 0.1),
    "points: 8": (lambda b: eg.Holomorphic(b, 8), 8, 0.2),
}


@pytest.mark.float64_only
@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_error_has_its_order_and_the_nudge_knows_it(scheme, exact):
    make, order, beta = SCHEMES[scheme]
    cost = loss if scheme.endswith("4") else unchecked
    wide, narrow = (error(make(jnp.asarray(b)), exact, loss=cost) for b in (beta, beta / 2))
    assert 1e-13 < narrow < wide < 0.1
    assert math.log2(wide / narrow) == pytest.approx(order, abs=0.15)
    told = gradient_of(unchecked, arguments(), eg.Echo(make(jnp.asarray(beta)).error()))
    made = gradient_of(cost, arguments(), eg.Echo(make(jnp.asarray(beta)))) - exact
    assert float(jnp.linalg.norm(told - made) / jnp.linalg.norm(made)) < 0.25


@pytest.mark.float64_only
def test_what_points_and_pairs_buy(exact):
    """At an error of 1e-3 of two nudges, four points have a few 1e-6, four real nudges 1e-6, eight points 1e-9."""
    radius = jnp.asarray(0.06)
    four = error(eg.Holomorphic(radius, 4), exact)
    real = error(eg.Richardson(radius, 4), exact)
    assert 5e-4 < error(eg.Symmetric(radius), exact) < 2e-3
    assert 1e-6 < four < 1e-5
    assert 2e-7 < real < 2e-6
    assert error(eg.Holomorphic(radius, 8), exact) < 1e-9
    # Both neglect the fifth derivative: with nodes 1/2 and 1 its weight is a quarter.
    assert four / real == pytest.approx(4, rel=0.05)


@pytest.mark.fast
@pytest.mark.float64_only
def test_the_complex_step_has_no_smallest_radius(exact):
    assert error(eg.Holomorphic(1e-20, 2), exact) < 1e-12
    with pytest.raises(eqx.EquinoxRuntimeError, match="lost in rounding"):
        error(eg.Symmetric(1e-20), exact)


def test_a_nudge_that_is_mostly_rounding_is_refused():
    """At any strength, down to zero, the gradient has its digits or an error is raised."""
    exact, strengths = gradient_of(loss, arguments(), eg.Backprop()), np.logspace(-2, -16, 15)
    errors = []
    for beta in strengths:
        try:
            errors.append(error(eg.Symmetric(jnp.asarray(beta)), exact))
        except eqx.EquinoxRuntimeError:
            break
    with pytest.raises(eqx.EquinoxRuntimeError, match="lost in rounding"):
        error(eg.Symmetric(jnp.asarray(strengths[len(errors)])), exact)
    assert max(errors) < 5e-3
    few, many = (1, 5) if exact.dtype == jnp.float32 else (9, 12)
    assert few <= len(errors) <= many  # and nothing sensible is refused


def test_an_automatic_strength_gains_digits_with_the_order():
    tolerance = {"float64": (1e-10, 1e-12), "float32": (2e-3, 2e-4)}[str(jnp.zeros(()).dtype)]
    exact = gradient_of(loss, arguments(), eg.Backprop())
    for nudge, limit in zip((eg.Richardson(), eg.Holomorphic()), tolerance, strict=True):
        found = error(nudge, exact)
        told = float(jnp.linalg.norm(gradient_of(loss, arguments(), eg.Echo(nudge.error())) / jnp.linalg.norm(exact)))
        assert found < limit, nudge
        assert told < 10 * limit, nudge
        assert found < 20 * told, nudge


@pytest.mark.float64_only
@pytest.mark.parametrize("integrator", [eg.Yoshida(6), eg.ImplicitMidpoint()], ids=str)
def test_complex_echoes_of_every_kind_of_integrator(integrator):
    """A PyTree state, explicit time, a relativistic kinetic energy, inputs, a cost on nodes and one along the run."""
    point = machine(7)
    point = point._replace(cost=Cost(0.1 * point.cost.weight), closed_over=None)

    def of(point, gradient):
        sol = solve(
            point.system,
            eg.InitialValue(point.q, point.p),
            point.inputs,
            dt=point.dt,
            t0=point.t0,
            integrator=integrator,
            gradient=gradient,
            save=lambda t, q, p: jnp.tanh(q["b"]) * t,
            cost=point.cost,
            throw=False,
        )
        return 0.1 * mixed((sol.q, sol.p, sol.saved)) + sol.cost

    exact = gradient_of(of, point, eg.Backprop())
    assert error(eg.Holomorphic(1e-2, 8), exact, point, of) < 1e-9


def with_term(term):
    class Other(Cubic):
        def potential(self, t, q, u):
            return Cubic.potential(self, t, q, u) + term(q)

    return Other


@pytest.mark.float64_only
@pytest.mark.parametrize(
    ("term", "complaint"),
    [
        (lambda q: jnp.sum(jnp.abs(q) ** 3), "applies abs to the state"),
        (lambda q: jnp.sum(jnp.where(q > 0, q.real * q, 0 * q)), "applies real to the state"),
        (lambda q: jnp.sum(jax.nn.relu(q) ** 2), "applies max to the state"),
        (lambda q: jnp.sum(q.real**2), "applies real to the state"),
        (lambda q: jnp.vdot(q, q).real, "conj, real to the state"),
        (lambda q: jnp.sum(jax.lax.map(lambda x: jnp.abs(x) ** 2, q)), "applies abs to the state"),
        (lambda q: jnp.sum(jax.scipy.special.erf(q)), "fails for a complex state: erf does not accept"),
    ],
)
def test_an_energy_that_is_not_holomorphic_is_refused(term, complaint):
    args = arguments(with_term(term))
    with pytest.raises(TypeError, match=complaint) as refusal:
        eqx.filter_grad(loss)(args, eg.Echo(eg.Holomorphic(0.1)))
    assert "Richardson" in str(refusal.value)


class Bumper(eg.Lagrangian):
    """A velocity nonlinear in the momentum, and a wall on one side."""

    mass: jax.Array
    wall: jax.Array

    def __call__(self, t, q, v, u):
        inertia = jnp.sum(self.mass * v**2 / 2 + v**4 / 4)
        return inertia - jnp.sum(q**2) / 2 - jnp.sum(jnp.where(q > 0, self.wall * q**2, 0 * q))


@pytest.mark.float64_only
def test_conditions_that_hold_and_legendre_transforms_are_holomorphic():
    """A condition outside the circle selects one holomorphic function; one inside the circle shows in the leak."""
    system = Bumper(jnp.asarray(1.5), jnp.asarray(2.0))

    def of(args, gradient):
        system, q = args
        start = eg.InitialValue(q, jnp.asarray([0.3, 0.4]))
        return mixed(solve(system, start, dt=0.1, steps=5, gradient=gradient, save=eg.FinalNode()).q)

    clear, close = ((system, jnp.asarray([x, -0.8])) for x in (0.5, 0.0))
    errors = [error(eg.Holomorphic(0.1, 8), gradient_of(of, x, eg.Backprop()), x, of) for x in (clear, close)]
    assert errors[0] < 1e-9
    assert errors[1] > 1e-3


@pytest.mark.float64_only
def test_what_is_refused_would_be_wrong(monkeypatch):
    """Without the check, |q|³ has a wrong gradient, and the leak shows it."""
    args = arguments(with_term(lambda q: 0.5 * jnp.sum(jnp.abs(q) ** 3)))
    exact = gradient_of(loss, args, eg.Backprop())
    assert error(eg.Richardson(1e-3, 4), exact, args) < 1e-6
    monkeypatch.setattr("echograd._internal._energy._check_holomorphic", lambda value, x: None)
    found = jnp.inf
    with pytest.raises(eqx.EquinoxRuntimeError, match="imaginary leak"):
        found = error(eg.Holomorphic(1e-3, 4), exact, args)
    assert found > 1e-2


@pytest.mark.float64_only
def test_the_leak_falls_with_the_radius_and_is_refused_where_it_is_large(exact):
    """The leak is of an order in the radius lower by two than the error."""
    norms = [
        float(jnp.linalg.norm(gradient_of(loss, arguments(), eg.Echo(eg.Holomorphic(jnp.asarray(r), 4).leak()))))
        for r in (0.05, 0.025)
    ]
    assert math.log2(norms[0] / norms[1]) == pytest.approx(2, abs=0.15)
    assert norms[0] < 0.05 * float(jnp.linalg.norm(exact))
    with pytest.raises(eqx.EquinoxRuntimeError, match=r"leak is \d|did not retrace|too strong"):
        error(eg.Holomorphic(3.0, 4), exact)


@pytest.mark.float64_only
@pytest.mark.fast
@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: eg.Richardson(0.1, 2), "at least 4"),
        (lambda: eg.Richardson(0.1, 5), "pass an even order"),
        (lambda: eg.Richardson("big", 4), '"auto"'),
        (lambda: eg.Holomorphic(0.1, 3), "conjugate pairs"),
        (lambda: eg.Holomorphic(0.1, 2).leak(), "two points"),
    ],
)
def test_misuse_is_refused_at_once(make, complaint):
    with pytest.raises(ValueError, match=complaint):
        make()


def test_infinitesimal_readings_cannot_be_noisy():
    with pytest.raises(TypeError, match="finite nudge"):
        eg.Noisy(eg.Infinitesimal(), 1e-3, jax.random.key(0))
    with pytest.raises(eqx.EquinoxRuntimeError, match="zero or positive"):
        eqx.filter_jit(lambda s: eg.Noisy(eg.Symmetric(0.1), s, jax.random.key(0)).scale)(jnp.asarray(-1.0))


class TwoPrecisions(eg.SeparableHamiltonian):
    """A coordinate in float32 beside others in float64."""

    stiffness: jax.Array

    def kinetic(self, t, p):
        return 0.5 * jnp.sum(p["fine"] ** 2) + 0.5 * p["rough"].astype(float) ** 2

    def potential(self, t, q, u):
        rough = q["rough"].astype(float)
        return 0.5 * jnp.sum(self.stiffness * q["fine"] ** 2) + 0.3 * rough * q["fine"][0] ** 2 + 0.5 * rough**2


@pytest.mark.float64_only
def test_an_automatic_strength_is_that_of_the_coarsest_numbers():
    """A strength for float64 would be lost in the rounding of the float32 coordinate."""

    def loss(stiffness, gradient):
        q = {"rough": jnp.asarray(0.2, jnp.float32), "fine": jnp.asarray([0.1, 0.4])}
        start = eg.InitialValue(q, v=jax.tree.map(jnp.ones_like, q))
        sol = solve(TwoPrecisions(stiffness), start, dt=0.1, steps=50, gradient=gradient)
        return jnp.sum(sol.q["fine"][-1] ** 2) + sol.q["rough"][-1].astype(float)

    with jax.numpy_dtype_promotion("standard"):
        slope = jax.jit(lambda x: [jax.grad(loss)(x, g) for g in (eg.Backprop(), eg.Echo(eg.Symmetric()))])
        expected, found = slope(jnp.asarray([1.0, 2.0]))
    np.testing.assert_allclose(found, expected, rtol=3e-4)
