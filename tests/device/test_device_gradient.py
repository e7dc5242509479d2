"""Gradients by echoes on a machine: on one that is its model they are those of `solve`, whatever the problem."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import echograd as eg
from cases import chain, machine, mixed, worst
from echograd.device import Friction, Hosted, ImperfectMirror, Quantisation, Simulated, retrace_error, run
from echograd.systems import ChargedParticle, KerrLattice

pytestmark = pytest.mark.least_effort

RING = np.array([[0, np.exp(0.5j), 0, 1], [np.exp(-0.5j), 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0]])


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def field():
    """A wave on a PT-symmetric lattice: its mirror exchanges sites, so parameters are read in the mirror."""
    return KerrLattice(RING, 0.1, 0.5, [1, 0, 3, 2]), *eg.canonical(jnp.asarray([1.0, 0.3j, 0.5 - 0.2j, -0.4])), None


def charge():
    """A charge in a magnetic field, whose mirror changes the drive too."""
    return ChargedParticle(field=1.5), draw(2), draw(2, seed=1), draw(12, 2)


# What to run, step, start of the clock, integrator, nudge; and whether compiled as a whole.
CASES = {
    "trees, inputs, explicit time": (lambda: machine()[:4], 0.11, 0.4, None, eg.Symmetric(0.03), True),
    "Yoshida": (lambda: chain()[:4], 0.2, 0.0, eg.Yoshida(4), eg.OneSided(0.03), False),
    "midpoint, mirrored inputs": (charge, 0.15, 0.0, None, eg.Richardson(0.1), True),
    "split steps, mirrored sites": (field, 0.15, 0.0, None, eg.Symmetric(0.03), True),
}


def gradient(arguments, solver, **options):
    """Return the gradient of a loss of all nodes, with respect to the system, the initial state and the inputs."""

    def loss(arguments):
        system, q, p, inputs = arguments
        steps = None if inputs is not None else 12
        sol = solver(system, eg.InitialValue(q, p), inputs, steps=steps, **options)
        return mixed((sol.q, sol.p, sol.t))

    return eqx.filter_grad(loss)(arguments)


def on_machine(device, nudge, **more):
    return lambda *args, **options: run(device, *args, nudge=nudge, **options, **more)


@pytest.mark.float64_only
@pytest.mark.parametrize(("make", "dt", "t0", "integrator", "nudge", "compiled"), CASES.values(), ids=CASES)
def test_on_a_perfect_machine_it_is_the_gradient_of_an_echo(make, dt, t0, integrator, nudge, compiled):
    arguments = make()

    def gradients(arguments):
        device, echo = Simulated(integrator=integrator), eg.Echo(nudge, retrace_tolerance=float("inf"))
        options = {"integrator": integrator, "throw": False, "gradient": echo}
        found = gradient(arguments, on_machine(device, nudge, throw=False), dt=dt, t0=t0)
        return found, gradient(arguments, eg.solve, dt=dt, t0=t0, **options)

    # This is the gradient of a finite nudge, not the exact one: see the next test.
    found, expected = (eqx.filter_jit(gradients) if compiled else gradients)(arguments)
    assert worst(found, expected) < 1e-10


SYSTEM, Q, P, INPUTS = chain()[:4]


class Pendulums(eg.SeparableHamiltonian):
    gravity: jax.Array

    def kinetic(self, t, p):
        return 0.5 * jnp.sum(p**2)

    def potential(self, t, q, u):
        return jnp.sum(self.gravity * (1 - jnp.cos(q))) + 0.2 * jnp.sum(jnp.diff(q) ** 2)


PENDULUMS = Pendulums(jnp.asarray([1.0, 0.7, 1.3]))
OPTIONS = {"dt": 0.1, "steps": 30}


def swing(system, solver, q=None):
    sol = solver(system, eg.InitialValue(Q if q is None else q, P), **OPTIONS)
    return jnp.sum(jnp.sin(sol.q[-1]) * jnp.asarray([1.0, -0.5, 2.0], Q.dtype)) + jnp.mean(sol.p**2)


def worn(friction, gain):
    """Return a machine. All have the same structure, so they share one compiled program."""
    return Simulated([Friction(jnp.asarray(friction)), ImperfectMirror(jnp.asarray(gain))])


PERFECT = worn(0.0, 1.0)


@eqx.filter_jit
def pendulum_gradient(device, beta, q=Q):
    """Gradient with respect to gravity, and the retrace error, of the pendulums on a machine."""

    def loss(system, probe):
        return swing(system, on_machine(device, eg.Symmetric(beta), probe=probe, throw=False), q)

    found, retrace = jax.grad(loss, (0, 1))(PENDULUMS, 0.0)
    return found.gravity, retrace


SOLVE = eqx.Partial(eg.solve, gradient=eg.Backprop(), throw=False)
EXACT = eqx.filter_jit(lambda q: eqx.filter_grad(lambda s: swing(s, SOLVE, q))(PENDULUMS).gravity)


@pytest.mark.float64_only
def test_the_error_falls_with_the_square_of_the_nudge():
    exact = EXACT(Q)
    betas = map(jnp.asarray, (0.1, 0.05, 0.025))
    errors = [float(jnp.linalg.norm(pendulum_gradient(PERFECT, beta)[0] - exact)) for beta in betas]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.1)
    assert np.log2(errors[1] / errors[2]) == pytest.approx(2, abs=0.1)


def test_in_a_batch_and_compiled_it_is_the_same():
    """One machine, many starts: `vmap` of `jit` gives what single runs do, in float32 too."""
    starts, beta = jnp.stack([Q, 0.5 * Q, -Q]), jnp.asarray(0.02)
    found, retrace = jax.vmap(lambda q: pendulum_gradient(PERFECT, beta, q))(starts)
    for x, y, q in zip(found, retrace, starts, strict=True):
        single, measured = pendulum_gradient(PERFECT, beta, q)
        exact = EXACT(q)
        tolerance = 1e-12 if Q.dtype == jnp.float64 else 1e-3
        assert jnp.linalg.norm(x - single) < tolerance * jnp.linalg.norm(exact)
        assert jnp.linalg.norm(x - exact) < 2e-3 * jnp.linalg.norm(exact)
        assert jnp.abs(y - measured) < 1e-4
    assert found.dtype == retrace.dtype == Q.dtype


def test_the_retrace_error_is_measured_on_the_machine_and_limits_what_is_accepted():
    beta = jnp.asarray(0.02)
    measure = eqx.filter_jit(lambda device: retrace_error(device, PENDULUMS, eg.InitialValue(Q, P), **OPTIONS))
    for device, least, most in ((PERFECT, 0.0, 1e-4), (worn(0.1, 1.0), 0.1, 0.5), (worn(0.0, 0.7), 0.1, 0.5)):
        measured = float(measure(device))
        assert least <= measured < most
        # That of the nudged echoes is the same up to the square of the nudge.
        assert float(pendulum_gradient(device, beta)[1]) == pytest.approx(measured, abs=5e-3)

    def strict(system):
        return swing(system, on_machine(worn(0.0, 0.7), eg.Symmetric(0.02), retrace_tolerance=0.05))

    with pytest.raises(eqx.EquinoxRuntimeError, match="did not run back along its path"):
        eqx.filter_jit(eqx.filter_grad(strict))(PENDULUMS)


@pytest.mark.float64_only
def test_a_machine_that_holds_more_than_its_model_is_read_by_the_chain_rule():
    """The plant permutes and squares the parameters of the model, and has a hidden anharmonicity."""

    class Real(eg.SeparableHamiltonian):
        gravity: jax.Array
        hidden: jax.Array

        def kinetic(self, t, p):
            return 0.5 * jnp.sum(p**2)

        def potential(self, t, q, u):
            return Pendulums.potential(self, t, q, u) + self.hidden * jnp.sum(q**4)

    def plant(model):
        return Real(model.gravity[::-1] ** 2, jnp.asarray(0.1))

    found, _ = pendulum_gradient(Simulated(plant=plant), jnp.asarray(1e-3))
    expected = jax.jit(jax.grad(lambda g: swing(plant(Pendulums(g)), SOLVE)))(PENDULUMS.gravity)
    assert jnp.linalg.norm(found - expected) < 1e-5 * jnp.linalg.norm(expected)
    assert jnp.linalg.norm(found - EXACT(Q)) > 0.1 * jnp.linalg.norm(expected)


class Windy(eg.Hamiltonian):
    """Not even in the momentum, and without a mirror."""

    wind: jax.Array

    def __call__(self, t, q, p, u):
        return 0.5 * jnp.sum(p**2 + q**2) + jnp.sum(self.wind * p)


def test_a_parameter_whose_slope_is_odd_is_read_in_forward_time_or_refused():
    """Without wind the machine runs back, but its slope in the wind is odd."""
    calm = Windy(jnp.zeros(3))
    found = eqx.filter_jit(eqx.filter_grad(lambda s: swing(s, on_machine(Simulated(), eg.Symmetric(0.1)))))(calm)
    exact = eqx.filter_jit(eqx.filter_grad(lambda s: swing(s, SOLVE)))(calm)
    assert worst(found, exact) < 1e-2
    with pytest.raises(eqx.EquinoxRuntimeError, match="with the wrong sign"):
        eqx.filter_grad(lambda s: swing(s, on_machine(Hosted(lambda order: None), eg.Symmetric(0.1))))(calm)


KEPT = {
    "final": ({"save": eg.FinalNode()}, lambda sol: (sol.q, sol.p)),
    "every fifth": ({"save": eg.EveryNode(5)}, lambda sol: (sol.q, sol.p)),
    "the ends": ({"save": eg.EveryNode(13)}, lambda sol: (sol.q, sol.p)),
    "function and cost": (
        {"save": lambda t, q, p: t * q[0], "cost": lambda t, q, p: jnp.sum(q * p)},
        lambda sol: (sol.saved, sol.cost, sol.q),
    ),
}


@pytest.mark.parametrize("name", KEPT)
def test_what_is_kept_is_what_solve_keeps(name):
    """Linear springs: exact at any strength. 13 steps, which 5 does not divide."""
    options, seen = KEPT[name]

    def value(arguments, solver):
        system, q, p, inputs = arguments
        sol = solver(system, eg.InitialValue(q, p), inputs, dt=0.2, **options)
        return mixed(seen(sol)), (sol.t, seen(sol), sol.stride)

    run_it, solve_it = on_machine(Simulated(), eg.Symmetric(0.1)), eqx.Partial(eg.solve, gradient=eg.Backprop())
    both = eqx.filter_jit(lambda x: [eqx.filter_grad(value, has_aux=True)(x, f) for f in (run_it, solve_it)])
    (found, sol), (expected, reference) = both((SYSTEM, Q, P, INPUTS))
    tolerance = 1e-9 if Q.dtype == jnp.float64 else 1e-4
    assert worst(found, expected) < tolerance
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), sol, reference)


def test_the_memory_of_a_final_node_does_not_grow_with_the_steps():
    def temporary(steps):
        def loss(system):
            sol = run(
                Simulated(),
                system,
                eg.InitialValue(Q, P),
                dt=0.1,
                steps=steps,
                nudge=eg.Symmetric(0.1),
                save=eg.FinalNode(),
            )
            return jnp.sum(sol.q**2)

        return jax.jit(jax.grad(loss)).lower(PENDULUMS).compile().memory_analysis().temp_size_in_bytes

    assert temporary(10_000) <= temporary(1_000) + 1_000


@pytest.mark.parametrize(
    ("change", "error", "complaint"),
    [
        ({"nudge": eg.Infinitesimal()}, TypeError, "finite, real strengths"),
        ({"nudge": eg.Holomorphic(0.1)}, TypeError, "finite, real strengths"),
        ({"nudge": eg.Noisy(eg.Symmetric(0.1), 0.1, jax.random.key(0))}, TypeError, "see ReadoutNoise"),
        ({"machine": eg.Leapfrog()}, TypeError, "not a machine"),
        ({"boundary": eg.FixedEnds(Q, Q)}, TypeError, "InitialValue"),
        ({"model": eg.LinearDamped(None, 0.1, jnp.ones(3))}, TypeError, "Friction"),
        ({"model": Windy(jnp.ones(3))}, eqx.EquinoxRuntimeError, r"not time-reversible.* by \d.* of their size"),
        ({"experiment": 0.5}, ValueError, "a Python integer"),
        ({"retrace_tolerance": 0.0}, ValueError, "positive"),
        ({"dt": 1e9}, eqx.EquinoxRuntimeError, "not finite"),
    ],
)
def test_wrong_use_is_refused(change, error, complaint):
    boundary = eg.InitialValue(Q, P)
    told = {"machine": Simulated(), "model": PENDULUMS, "boundary": boundary, "nudge": eg.Symmetric(0.1), **OPTIONS}
    if "dt" in change:
        change = {**change, "model": SYSTEM, "inputs": jnp.zeros(30)}
    with pytest.raises(error, match=complaint):
        jax.block_until_ready(run(**{**told, **change}).q)


def timed(x):
    return swing(
        PENDULUMS, lambda *args, dt, **more: run(Simulated(), *args, dt=x * dt, nudge=eg.Symmetric(0.1), **more)
    )


def inside(x):
    return swing(PENDULUMS, on_machine(Simulated([Friction(x)]), eg.Symmetric(0.1)))


@pytest.mark.parametrize(("function", "complaint"), [(timed, "clock"), (inside, "inside of the machine")])
def test_what_no_echo_reads_has_no_gradient(function, complaint):
    with pytest.raises(TypeError, match=complaint):
        jax.grad(function)(jnp.ones(()))


def test_what_is_not_a_number_does_not_pass():
    def rooted(q):
        start, nudge = eg.InitialValue(q, 0 * P), eg.Symmetric(0.1)
        return jnp.sqrt(jnp.sum(run(Simulated(), PENDULUMS, start, dt=0.1, steps=2, nudge=nudge).q[-1] ** 2))

    with pytest.raises(
        eqx.EquinoxRuntimeError, match="derivative that is NaN"
    ):  # at the end of a run at rest the root has no slope
        jax.block_until_ready(eqx.filter_jit(jax.grad(rooted))(0 * Q))
    with pytest.raises(eqx.EquinoxRuntimeError, match="not finite"):
        eqx.filter_jit(lambda p: retrace_error(Simulated(), PENDULUMS, eg.InitialValue(Q, p), **OPTIONS))(P * jnp.nan)


def test_kicks_that_never_arrive_are_noticed():
    """Below half a step of the converter every kick is rounded to zero, and all echoes are equal."""
    device = Simulated([Quantisation(kicks=0.1)])
    with pytest.raises(eqx.EquinoxRuntimeError, match="the nudge is lost"):
        eqx.filter_jit(eqx.filter_grad(lambda s: swing(s, on_machine(device, eg.Symmetric(0.01)))))(PENDULUMS)


def test_second_derivatives_and_forward_mode_are_refused():
    with pytest.raises(TypeError, match="a machine is not differentiable"):
        jax.hessian(lambda g: swing(Pendulums(g), on_machine(Simulated(), eg.Symmetric(0.1))))(PENDULUMS.gravity)
