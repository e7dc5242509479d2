"""Every ready-made system: its physics, its echo, and its leaves."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import echograd as eg
from cases import mixed, solve, worst

pytestmark = pytest.mark.least_effort

STEPS = 40


class Specimen(NamedTuple):
    """A small system, a start without symmetry, and a step that resolves its motion."""

    system: Any
    start: Any
    dt: float
    u: Any = None


def specimens():
    systems = eg.systems
    ripple = jnp.cos(jnp.arange(8.0))
    speed = 1 + 0.2 * jnp.cos(jnp.arange(30.0)).reshape(5, 6)
    return {
        "FPUTChain": Specimen(systems.FPUTChain(beta=0.1), lambda s: s.start(n=8), 0.2, ripple),
        "PendulumChain": Specimen(systems.PendulumChain(), lambda s: s.start(n=8), 0.03, ripple),
        "DoublePendulum": Specimen(systems.DoublePendulum(), lambda s: s.start(), 0.02),
        "SphericalPendulum": Specimen(systems.SphericalPendulum(), lambda s: s.start(), 0.03),
        "Kepler": Specimen(systems.Kepler(), lambda s: s.start(), 0.05),
        "NBody": Specimen(systems.NBody(mass=jnp.asarray([0.3, 0.2, 0.4, 0.1])), lambda s: s.start(), 0.1),
        "OscillatorNetwork": Specimen(systems.OscillatorNetwork(), lambda s: s.start(), 0.2, jnp.asarray(0.3)),
        "DuffingNetwork": Specimen(systems.DuffingNetwork(), lambda s: s.start(), 0.15, ripple),
        "ChargedParticle": Specimen(systems.ChargedParticle(), lambda s: s.start(), 0.1),
        "SineGordon": Specimen(systems.SineGordon(), lambda s: s.start(n=8), 0.05, ripple),
        # Its bump is one cell wide: half of it is waves of hω = 0.4 to 0.66, where leapfrog has an error of h²ω²/4.
        "WaveField": Specimen(systems.WaveField(speed, spacing=0.7), lambda s: s.start(), 0.15, 0.1 * speed),
        "KerrLattice": Specimen(systems.KerrLattice(), lambda s: s.start(), 0.1, 0.1j * ripple[:6].astype(complex)),
        "NonlinearSchroedinger": Specimen(
            systems.NonlinearSchroedinger(ripple), lambda s: s.start(), 0.1, 0.1 * ripple.astype(complex)
        ),
        "LCLadder": Specimen(systems.LCLadder(), lambda s: s.start(n=8), 0.2, jnp.asarray(0.3)),
    }


ZOO = specimens()


@pytest.fixture(scope="module", params=ZOO, ids=str)
def specimen(request):
    return ZOO[request.param]


def boundary(system, start):
    return eg.InitialValue(*start(system))


def held(u):
    """Return inputs with `u` at every step, or `None`."""
    return None if u is None else jnp.broadcast_to(u, (STEPS, *u.shape))


@pytest.mark.fast
def test_the_zoo_is_all_here():
    bases = ("AbstractSystem", "Hamiltonian", "Lagrangian", "SeparableHamiltonian", "SplitHamiltonian", "Dissipative")
    wrappers = ("Envelope", "LinearDamped", "MassDamped", "MovingParameters")  # made of a system, or of matrices
    ready = {
        name
        for name, value in vars(eg.systems).items()
        if isinstance(value, type)
        and issubclass(value, eg.systems.AbstractSystem)
        and name not in (*bases, *wrappers)
        and not name.startswith("Legendre")
    }
    # test_acoustic.py tests the field.
    assert ready == {*ZOO, "AcousticField"}


@pytest.mark.float64_only
def test_energy_reversal_and_gradient(specimen):
    """Energy errors fall as dt², the echo retraces and is the gradient; all from one program."""
    system, start, dt, u = specimen
    energy = eg.legendre(system) if isinstance(system, eg.Lagrangian) else system

    def loss(arguments, dt, gradient):
        system, inputs = arguments
        sol = solve(system, boundary(system, start), inputs, dt=dt, steps=STEPS, gradient=gradient)
        energies = jax.vmap(lambda t, q, p: energy(t, q, p, u))(sol.t, sol.q, sol.p)
        return mixed((sol.q[STEPS // 2], sol.q[-1], sol.p[-1])), energies

    @eqx.filter_jit
    def everything(system, dts):
        def each(dt):
            arguments = system, held(u)
            expected, _ = eqx.filter_grad(loss, has_aux=True)(arguments, dt, eg.Backprop())
            return expected, *eqx.filter_grad(loss, has_aux=True)(arguments, dt, eg.Echo(retrace_tolerance=1e-11))

        return jax.vmap(each)(dts)

    expected, found, energies = everything(system, jnp.asarray([dt, dt / 2]))
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(expected))
    assert worst(found, expected) < 1e-9
    coarse, fine = energies[0, : STEPS // 2 + 1], energies[1]
    error = [float(jnp.max(jnp.abs(e - e[0]))) for e in (coarse, fine)]
    size = float(jnp.max(jnp.abs(energies)))
    if isinstance(system, eg.systems.ChargedParticle):  # quadratic, and the midpoint rule conserves such energies
        assert max(error) < 1e-13 * size
    else:
        assert 1e-9 * size < error[0] < 0.05 * size
        assert np.log2(error[0] / error[1]) == pytest.approx(2, abs=0.15)


@pytest.mark.fast
def test_it_is_a_pytree_of_trainable_arrays(specimen, tmp_path):
    system = specimen.system
    leaves, treedef = jax.tree.flatten(system)
    assert leaves
    assert all(eqx.is_inexact_array(x) and not x.weak_type for x in leaves)
    same = jax.tree.unflatten(treedef, leaves)
    assert eqx.tree_equal(same, system)
    assert repr(system).startswith(type(system).__name__ + "(")
    eqx.tree_serialise_leaves(tmp_path / "system.eqx", system)
    blank = jax.tree.map(jnp.zeros_like, system)
    assert eqx.tree_equal(eqx.tree_deserialise_leaves(tmp_path / "system.eqx", blank), system)


def test_the_defaults_are_ready_to_run(specimen):

    @eqx.filter_jit
    def ready(system):
        state = system.start()
        return state, jax.grad(system, (1, 2))(jnp.zeros(()), *state, None)

    (first, second), slope = ready(type(specimen.system)())
    assert first.shape == second.shape
    assert first.dtype == second.dtype == jnp.result_type(float)
    assert np.all(np.isfinite(slope))
    assert np.any(slope)
    with pytest.raises(TypeError, match="unexpected keyword"):
        type(specimen.system)(colour=1.0)


def at_once(f):
    """Return the result of a function without arguments, from one program instead of many small ones."""
    return jax.jit(lambda: f())()


def run(system, dt, steps, *state):
    return eg.solve(system, eg.InitialValue(*state), dt=dt, steps=steps, save=eg.FinalNode(), throw=False)


@pytest.mark.float64_only
def test_what_is_known_of_them():
    """One known fact of each that a wrong energy would violate."""
    systems = eg.systems

    # Kepler's third law: 2π for a semi-major axis of 1 at any eccentricity.
    q, p = at_once(lambda: systems.Kepler().start(0.4))
    sol = run(systems.Kepler(), 2 * jnp.pi / 4000, 4000, q, p)
    np.testing.assert_allclose(sol.q, q, atol=1e-4)

    # A kink moves at its velocity and keeps its shape.
    field = systems.SineGordon(spacing=0.1)
    sol = run(field, 0.05, 160, *at_once(lambda: field.start(200, 0.5)))
    centre = np.interp(np.pi, sol.q, 0.1 * np.arange(200.0))
    assert centre == pytest.approx(0.1 * 50 + 0.5 * 8, abs=0.02)

    # Standing waves of a uniform medium between walls are zero after a quarter period.
    pond = systems.WaveField(jnp.full((9, 7), 2.0), spacing=0.5)
    shape = jnp.asarray(np.outer(np.sin(np.pi * np.arange(1.0, 10.0) / 10), np.sin(np.pi * np.arange(1.0, 8.0) / 8)))
    rate = 2 * 2 / 0.5 * np.sqrt(np.sin(np.pi / 20) ** 2 + np.sin(np.pi / 16) ** 2)
    sol = run(pond, np.pi / 2 / rate / 400, 400, shape, jnp.zeros_like(shape))
    np.testing.assert_allclose(sol.q, 0, atol=1e-4)

    # The dispersion of a linear FPUT chain and of an LC ladder; a pendulum chain in phase is one pendulum.
    chain = systems.FPUTChain(alpha=0.0, stiffness=3.0, mass=2.0)
    q, p = at_once(lambda: chain.start(9))
    sol = run(chain, np.pi / 2 / (2 * np.sqrt(1.5) * np.sin(np.pi / 20)) / 400, 400, q, p)
    np.testing.assert_allclose(sol.q, 0, atol=1e-4)
    ladder = systems.LCLadder(capacitance=2.0, inductance=3.0)
    charge = jnp.asarray(np.cos(np.pi * (np.arange(8.0) + 0.5) / 8))
    sol = run(ladder, np.pi / 2 / (2 / np.sqrt(6) * np.sin(np.pi / 16)) / 400, 400, jnp.zeros(8), charge)
    np.testing.assert_allclose(sol.p, 0, atol=1e-4)
    pendulums = systems.PendulumChain(length=2.0, mass=3.0)
    small = 1e-3 * jnp.ones(3)
    sol = run(pendulums, np.pi / 2 * np.sqrt(2 / 9.81) / 400, 400, small, 0 * small)
    np.testing.assert_allclose(sol.q, 0, atol=1e-8)

    # The momentum of a cluster is conserved, and distant bodies attract by Newton's law.
    cluster = systems.NBody()
    q, p = at_once(cluster.start)
    pull = at_once(lambda: jax.grad(cluster.potential, 1)(0.0, q, None))
    np.testing.assert_allclose(np.sum(pull, 0), 0, atol=1e-14)
    np.testing.assert_allclose(np.sum(p, 0), 0, atol=1e-14)
    pair = systems.NBody(mass=(2.0, 3.0), softening=0.0)
    force = at_once(lambda: -jax.grad(pair.potential, 1)(0.0, jnp.asarray([[0.0, 0.0], [10.0, 0.0]]), None))
    np.testing.assert_allclose(force, [[0.06, 0.0], [-0.06, 0.0]], atol=1e-12)

    # A charge circles at eB/m, clockwise for positive numbers.
    charge = systems.ChargedParticle(mass=2.0, charge=3.0, field=0.5, trap=0.0)
    sol = run(charge, 2 * jnp.pi / 0.75 / 4 / 400, 400, jnp.zeros(2), jnp.asarray([0.0, 2.0]))
    np.testing.assert_allclose(sol.q, [1 / 0.75, 1 / 0.75], atol=1e-4)

    # The start of a Lagrangian has momenta, too: m l² sin²θ times 2 rad/s.
    q, p = at_once(systems.SphericalPendulum(mass=2.0, length=3.0).start)
    np.testing.assert_allclose(p, [0.0, 2 * 9 * np.sin(1.0) ** 2 * 2], rtol=1e-14)

    # A spherical pendulum at the right rate circles at constant height.
    sphere, rate = systems.SphericalPendulum(length=2.0), np.sqrt(9.81 / 2 / np.cos(1.0))
    lift = at_once(lambda: jax.grad(sphere, 1)(0.0, jnp.asarray([1.0, 0.0]), jnp.asarray([0.0, rate]), None))
    np.testing.assert_allclose(lift, 0, atol=1e-12)

    # A double pendulum has the energies of its two masses in the plane.
    double = systems.DoublePendulum(mass=(1.5, 0.5), length=(2.0, 0.7))

    def places(q):
        arms = jnp.asarray([[2.0], [0.7]]) * jnp.stack([jnp.sin(q), -jnp.cos(q)], 1)
        return jnp.cumsum(arms, 0)

    q, v = jnp.asarray([0.4, -1.1]), jnp.asarray([0.3, 2.0])
    (x, velocity), energy = at_once(lambda: (jax.jvp(places, (q,), (v,)), double(0.0, q, v, None)))
    mass = np.asarray([1.5, 0.5])
    expected = 0.5 * np.sum(mass * np.sum(velocity**2, 1)) - 9.81 * np.sum(mass * x[:, 1])
    np.testing.assert_allclose(energy, expected, rtol=1e-14)

    # Springs of a network as a matrix: the same force.
    toy, rng = systems.OscillatorNetwork(), np.random.default_rng(0)
    q, bonds = rng.normal(size=6), np.zeros((6, 6))
    bonds[np.triu_indices(6, 1)] = toy.bonds
    bonds += bonds.T
    force = -toy.stiffness * q - bonds.sum(1) * q + bonds @ q
    duffing = systems.DuffingNetwork(stiffness=toy.stiffness, hardening=0.5, coupling=bonds)
    slopes = at_once(lambda: [jax.grad(x.potential, 1)(0.0, jnp.asarray(q), None) for x in (toy, duffing)])
    np.testing.assert_allclose(slopes, [-force, 0.5 * q**3 - force], atol=1e-12)


@pytest.mark.float64_only
def test_inputs_that_are_no_force_are_refused(specimen):
    """They would be broadcast, or ignored."""
    q, p = specimen.start(specimen.system)
    real = specimen.u is None or not jnp.iscomplexobj(specimen.u)
    for shape in ((*q.shape, 1), (1, *q.shape), (1,)):
        u = jnp.ones(shape, q.dtype if real else jnp.result_type(complex))
        with pytest.raises(ValueError, match=r"the input of one step|takes no inputs|the source of one step"):
            eqx.filter_eval_shape(specimen.system, jnp.zeros(()), q, p, u)


ONE_FOR_EACH = {
    "FPUTChain": {"mass": 8, "stiffness": 9, "alpha": 9, "beta": 9},
    "PendulumChain": {"mass": 8, "length": 8, "coupling": 7},
    "LCLadder": {"capacitance": 8, "inductance": 7},
    "SineGordon": {"speed": 7, "frequency": 8},
    "DuffingNetwork": {"mass": 8, "stiffness": 8, "hardening": 8},
    "OscillatorNetwork": {"mass": 6, "stiffness": 6},
    "NBody": {"mass": 4},
}


@pytest.mark.float64_only
@pytest.mark.parametrize("name", ONE_FOR_EACH)
def test_parameters_that_do_not_fit_the_state_are_refused(name):
    """A column of numbers and a row of coordinates would be broadcast to a matrix."""
    specimen = ZOO[name]
    q, p = specimen.start(specimen.system)

    def energy(system):
        return system(jnp.zeros(()), q, p, None)

    shapes = ONE_FOR_EACH[name]
    for field, n in shapes.items():
        for shape in ((n, 1), (1, n), (n + 1,)):
            wrong = eqx.tree_at(lambda s, f=field: getattr(s, f), specimen.system, jnp.ones(shape))
            with pytest.raises(ValueError, match=rf"{name}: {field} has shape"):
                eqx.filter_eval_shape(energy, wrong)

    many = eqx.tree_at(
        lambda s: [getattr(s, f) for f in shapes], specimen.system, [jnp.ones(n) for n in shapes.values()]
    )
    batch = jax.tree.map(lambda x: jnp.stack([x, x]), many)
    assert eqx.filter_eval_shape(jax.vmap(energy), batch).shape == (2,)


@pytest.mark.float64_only
def test_tables_that_do_not_fit_the_state_are_refused():
    network, pond = eg.systems.DuffingNetwork(coupling=jnp.ones((1, 1))), eg.systems.WaveField(jnp.ones((1, 4)))
    q, wide = jnp.ones(3), jnp.ones((3, 4))
    for system, state, field in ((network, q, "coupling"), (pond, wide, "speed")):
        with pytest.raises(ValueError, match=f"{field} has shape"):
            eqx.filter_eval_shape(system, jnp.zeros(()), state, state, None)


@pytest.mark.float64_only
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: eg.systems.OscillatorNetwork(bonds=jnp.ones(3)), "6 masses have 15 pairs"),
        (lambda: eg.systems.DuffingNetwork(coupling=jnp.ones(3)), "square matrix"),
        (lambda: eg.systems.WaveField(speed=jnp.ones(3)), "one number per cell"),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
