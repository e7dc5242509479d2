"""Rewinding: exact gradients through friction of every kind, and what it refuses."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import echograd as eg
from cases import solve
from echograd.friction import Drag, FrictionMatrix, Langevin, NoseHoover

pytestmark = [pytest.mark.least_effort]

N, STEPS = 6, 45
EXACT = 1e-12 if jax.config.jax_enable_x64 else 2e-4


class Sponge(eqx.Module):
    """Rates that depend on everything they may depend on."""

    strength: Array

    def __call__(self, t, q, u):
        return self.strength * (1 + q**2) * (1 + 0.3 * jnp.sin(t)) * (1 + u**2)


class Quadratic(eqx.Module):
    coefficient: Array

    def __call__(self, t, q, p, u):
        return self.coefficient * jnp.abs(p) * p


def chain():
    bonds = jnp.linspace(1.0, 2.0, N + 1)
    return eg.systems.FPUTChain(jnp.linspace(0.8, 1.2, N), bonds, 0.25 * bonds, 0.1 * bonds)


def start(friction):
    q, p = jnp.sin(0.7 + jnp.arange(N, dtype=float)), jnp.cos(1.1 * jnp.arange(N, dtype=float))
    if isinstance(friction, NoseHoover):
        return (q, jnp.zeros(())), (p, jnp.zeros(()))
    return q, p


def mixing():
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(N, N))
    return jnp.asarray(0.05 * matrix @ matrix.T / N + 0.1 * np.eye(N) + 0.05 * np.triu(np.ones((N, N)), 1))


KINDS = {
    "rates": lambda: jnp.linspace(-0.4, 2.0, N),  # some of them gain, one of them zero
    "sponge": lambda: Sponge(jnp.asarray(0.1)),
    "matrix": lambda: FrictionMatrix(mixing()),
    "drag": lambda: Drag(Quadratic(jnp.asarray(0.5))),
    "langevin": lambda: Langevin(jnp.linspace(0.1, 0.5, N), jnp.asarray(0.5), jax.random.key(3)),
    "thermostat": lambda: NoseHoover(jnp.asarray(0.5), jnp.asarray(3.0)),
}
SCHEMES = {"leapfrog": eg.Leapfrog(exact=True), "verlet": eg.VelocityVerlet(exact=True)}


def loss(arguments, gradient, save=None, steps=STEPS, integrator=None):
    """Return a loss that depends on saved nodes, the final state, a running cost, inputs and the step length."""
    system, (q, p), inputs, dt, weight = arguments
    cost = lambda t, q, p: weight * t * sum(jnp.sum(x**3) for x in jax.tree.leaves((q, p)))  # noqa: E731
    sol = solve(
        system, eg.InitialValue(q, p), inputs[:steps], dt=dt, t0=0.3, cost=cost, gradient=gradient,
        save=eg.EveryNode(4) if save is None else save, integrator=integrator,
    )  # fmt: skip
    return sol.cost + sum(jnp.sum(jnp.sin(x)) for x in jax.tree.leaves((sol.q, sol.p)))


def arguments_of(kind):
    friction = KINDS[kind]()
    inputs = 0.3 * jnp.sin(jnp.arange(STEPS * N, dtype=float)).reshape(STEPS, N)
    return eg.Damped(chain(), friction), start(friction), inputs, jnp.asarray(0.06), jnp.asarray(0.01)


def disagreement(found, expected):
    """Return the largest relative error over the leaves."""
    found, expected = jax.device_get((jax.tree.leaves(found), jax.tree.leaves(expected)))
    errors = [
        float(np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-30)) for a, b in zip(found, expected, strict=True)
    ]
    assert any(np.linalg.norm(x) > 1e-3 for x in expected)
    return max(errors)


@pytest.mark.parametrize(
    ("kind", "scheme"),
    [
        *((kind, "leapfrog") for kind in ("rates", "matrix", "langevin", "thermostat")),
        *(pytest.param(kind, "leapfrog", marks=pytest.mark.float64_only) for kind in ("sponge", "drag")),
        pytest.param("langevin", "verlet", marks=pytest.mark.float64_only),
        pytest.param("rates", "verlet", marks=pytest.mark.exhaustive),
    ],
)
def test_the_gradient_is_that_of_backprop_through_the_same_map(kind, scheme):
    gradient = eqx.filter_jit(eqx.filter_grad(lambda a, rule: loss(a, rule, integrator=SCHEMES[scheme])))
    arguments = arguments_of(kind)
    found, expected = gradient(arguments, eg.Rewind()), gradient(arguments, eg.Backprop())
    assert len(jax.tree.leaves(found)) >= 8
    assert disagreement(found, expected) < EXACT


@pytest.mark.float64_only
@pytest.mark.parametrize(
    "save", [eg.FinalNode(), eg.AllNodes(), lambda t, q, p: t * q[0] * p], ids=["final", "all", "function"]
)
def test_everything_that_is_saved_has_a_gradient(save):
    system, z, inputs, dt, _ = arguments_of("rates")

    def value(system, rule):
        sol = solve(system, eg.InitialValue(*z), inputs, dt=dt, save=save, gradient=rule)
        return jnp.sum(jnp.sin(sol.saved if sol.saved is not None else sol.q))

    slope = eqx.filter_jit(eqx.filter_grad(value))
    found, expected = (slope(system, rule) for rule in (eg.Rewind(), eg.Backprop()))
    assert disagreement(found, expected) < EXACT


@pytest.mark.parametrize("rule", [eg.Rewind(bits=0.9, checkpoints=3), eg.Rewind(bits=1.5)], ids=str)
def test_checkpoints_and_the_size_of_the_record_change_nothing(rule):
    arguments = arguments_of("sponge")
    slope = eqx.filter_jit(eqx.filter_grad(loss))
    found, expected = (slope(arguments, r) for r in (rule, eg.Backprop()))
    assert disagreement(found, expected) < EXACT


@pytest.mark.float64_only
def test_under_vmap_over_systems_starts_and_inputs():
    system, (q, p), inputs, dt, weight = arguments_of("rates")

    def value(rate, q, inputs, rule):
        return loss((eg.Damped(chain(), rate), (q, p), inputs, dt, weight), rule)

    batch = (
        jnp.stack([0.5 * system.friction.rate, 0.2 + system.friction.rate]),
        jnp.stack([q, -q]),
        jnp.stack([inputs, 2 * inputs]),
    )
    found, expected = (
        jax.jit(jax.vmap(jax.grad(lambda *a, rule=rule: value(*a, rule), (0, 1, 2))))(*batch)
        for rule in (eg.Rewind(), eg.Backprop())
    )
    assert disagreement(found, expected) < EXACT


@pytest.mark.float64_only
def test_second_derivatives_are_those_of_backprop():
    _, z, inputs, dt, _ = arguments_of("sponge")

    def value(strength, rule):
        system = eg.Damped(chain(), Sponge(strength))
        sol = solve(system, eg.InitialValue(*z), inputs, dt=dt, save=eg.FinalNode(), gradient=rule)
        return jnp.sum(sol.q**4)

    curvature = jax.jit(jax.hessian(value), static_argnums=1)
    found, expected = (curvature(jnp.asarray(0.1), rule) for rule in (eg.Rewind(), eg.Backprop()))
    assert abs(found / expected - 1) < 1e-9


@pytest.mark.float64_only
def test_a_second_derivative_that_is_lost_raises():
    q, p = start(None)

    def value(rate):
        sol = eg.solve(eg.Damped(chain(), rate), eg.InitialValue(q, p), dt=0.06, steps=3000, save=eg.FinalNode())
        return jnp.sum(sol.q**2)

    with pytest.raises(eg.RunError, match="second derivative is lost"), eg.plain_errors():
        jax.hessian(value)(jnp.asarray(0.5))


@pytest.mark.float64_only
def test_a_tree_of_momenta_with_and_without_friction():
    class Two(eg.SeparableHamiltonian):
        k: Array

        def kinetic(self, t, p):
            return 0.5 * (jnp.sum(p["a"] ** 2) + jnp.sum(p["b"] ** 2))

        def potential(self, t, q, u):
            return jnp.sum(self.k * (q["a"][:, None] - q["b"]) ** 4) + jnp.sum(q["b"] ** 2)

    q = {"a": jnp.ones(2), "b": jnp.arange(6, dtype=float).reshape(2, 3) / 5}
    p = jax.tree.map(lambda x: 0.5 * x, q)

    def value(arguments, rule):
        k, rate = arguments
        system = eg.Damped(Two(k), {"a": None, "b": rate})
        sol = solve(system, eg.InitialValue(q, p), dt=0.05, steps=30, gradient=rule)
        return jnp.sum(sol.q["a"] ** 2) + jnp.sum(sol.p["b"] ** 2)

    arguments = jnp.asarray(0.3), jnp.asarray(0.7)
    slope = eqx.filter_jit(eqx.filter_grad(value))
    found, expected = (slope(arguments, rule) for rule in (eg.Rewind(), eg.Backprop()))
    assert disagreement(found, expected) < EXACT


def test_without_friction_it_reverses_a_chaotic_run():
    system, (q, p) = chain(), start(None)

    def value(system, rule):
        sol = solve(
            system, eg.InitialValue(3 * q, 3 * p), dt=0.06, steps=200, integrator=eg.Leapfrog(exact=True), gradient=rule
        )
        return jnp.sum(sol.q[-1] ** 2)

    slope = eqx.filter_jit(eqx.filter_grad(value))
    found, expected = (slope(system, rule) for rule in (eg.Rewind(), eg.Backprop()))
    assert disagreement(found, expected) < EXACT


@pytest.mark.float64_only
def test_units_that_are_powers_of_two_change_nothing():
    q, p = start(None)
    bonds, rates = jnp.linspace(1.0, 2.0, N + 1), jnp.linspace(0.0, 2.0, N)

    @jax.jit
    def gradient(rates, length, time):
        def value(rates):
            system = eg.systems.FPUTChain(1.0, bonds / time**2, 0.25 * bonds / time**2 / length, beta=0.0)
            boundary = eg.InitialValue(length * q, length / time * p)
            sol = eg.solve(eg.Damped(system, rates), boundary, dt=0.06 * time, steps=40, save=eg.FinalNode())
            return jnp.sum(sol.q**2)

        return jax.grad(value)(rates)

    plain = gradient(rates, jnp.asarray(1.0), jnp.asarray(1.0))
    length, time = 2.0**-40, 2.0**30
    scaled = gradient(rates / time, jnp.asarray(length), jnp.asarray(time))
    np.testing.assert_array_equal(scaled / (length**2 * time), plain)


@pytest.mark.float64_only
def test_a_long_run_returns_to_its_bits_with_about_two_gamma_h_bits():
    """Gradients raise unless the run back arrives at the initial bits. Noise keeps the momenta moving."""
    seen = []
    q, p = start(None)

    @jax.jit
    @jax.grad
    def gradient(temperature):
        system = eg.Damped(eg.systems.FPUTChain(alpha=0.0), Langevin(0.2, temperature, jax.random.key(0)))
        rule = eg.Rewind(bits=0.2, report=seen.append)
        start = eg.InitialValue(q, p)
        return jnp.sum(solve(system, start, dt=0.05, steps=20_000, save=eg.FinalNode(), gradient=rule).q)

    assert np.isfinite(gradient(jnp.asarray(1.0)))
    jax.effects_barrier()
    (bits,) = seen
    assert 0.02 < bits < 0.05  # 2 gamma h = 0.02, in words that are not quite full


def test_a_record_that_is_too_small_raises():
    q, p = start(None)

    def value(rates):
        rule = eg.Rewind(bits=0.01)
        return jnp.sum(solve(eg.Damped(chain(), rates), eg.InitialValue(q, p), dt=0.06, steps=2000, gradient=rule).q)

    with pytest.raises(eg.RunError, match=r"needs more than .* bits for every momentum"), eg.plain_errors():
        jax.grad(value)(jnp.linspace(0.0, 2.0, N))


@pytest.mark.float64_only
def test_friction_that_leaves_nothing_raises():
    q, p = start(None)
    run = lambda rate: eg.solve(eg.Damped(chain(), rate), eg.InitialValue(q, p), dt=0.1, steps=3)  # noqa: E731
    with pytest.raises(eg.RunError, match=r"takes .* of a momentum in one step"):
        run(jnp.asarray(40.0))


WRONG = {
    "floats": (lambda: chain(), {"gradient": eg.Rewind()}, "in floats that round at every step"),
    "float friction": (
        lambda: eg.Damped(chain(), 0.1),
        {"gradient": eg.Rewind(), "integrator": eg.Leapfrog()},
        "in floats that round at every step",
    ),
    "echo": (lambda: eg.Damped(chain(), 0.1), {"gradient": eg.Echo()}, "loses energy"),
    "reciprocal": (lambda: eg.Damped(chain(), 0.1), {"gradient": eg.Reciprocal()}, r"Rewind\(\)"),
    "high order": (lambda: eg.Damped(chain(), 0.1), {"integrator": eg.Yoshida(4)}, "middle of the step"),
    "shape": (lambda: eg.Damped(chain(), jnp.ones(N + 1)), {}, "Give one number, or a tree"),
    "matrix": (lambda: eg.Damped(chain(), FrictionMatrix(jnp.eye(2))), {}, "there are 6 momenta"),
    "drag": (lambda: eg.Damped(chain(), Drag(lambda t, q, p, u: p[:2])), {}, "tree like the momenta"),
}


@pytest.mark.float64_only
@pytest.mark.parametrize("case", WRONG)
def test_wrong_use_raises_at_once(case):
    system, options, message = WRONG[case]
    with pytest.raises(eg.EchogradError, match=message):
        eg.solve(system(), eg.InitialValue(*start(None)), dt=0.05, steps=3, **options)


@pytest.mark.float64_only
def test_a_condition_on_both_ends_is_refused():
    q, _ = start(None)
    with pytest.raises(eg.ArgumentTypeError, match="runs from an InitialValue"):
        eg.solve(eg.Damped(chain(), 0.1), eg.FixedEnds(q, -q), dt=0.05, steps=3)
    with pytest.raises(eg.ArgumentTypeError, match="rewound to its InitialValue"):
        eg.solve(chain(), eg.FixedEnds(q, -q), dt=0.05, steps=3, gradient=eg.Rewind())


@pytest.mark.float64_only
@pytest.mark.parametrize("friction", [None, Drag, "strong"], ids=str)
def test_what_is_not_a_friction_is_refused(friction):
    with pytest.raises(eg.EchogradError, match="friction"):
        eg.Damped(chain(), friction)
