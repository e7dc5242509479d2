"""Split-step integration: exact readings of every part, reversal, order, and errors."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import echograd as eg
from cases import chain, errors, mixed, solve, worst
from echograd.systems import Drive, Hopping, Intensities, KerrLattice, Kinetic, NonlinearSchroedinger, Potential
from echograd.systems._split import parts_of

pytestmark = [pytest.mark.float64_only, pytest.mark.slow, pytest.mark.least_effort]

STEPS = 7
RING = np.roll(np.eye(4), 1, 0) + np.roll(np.eye(4), -1, 0)


def complexes(rng, *shape):
    return jnp.asarray(rng.normal(size=shape) + 1j * rng.normal(size=shape))


def pt_lattice():
    """Four sites with complex hoppings, symmetric under reflection and transposition together."""
    hopping = np.zeros((4, 4), complex)
    hopping[0, 1], hopping[1, 2], hopping[2, 3] = 0.7 * np.exp(0.5j), 0.9 * np.exp(-0.4j), 0.7 * np.exp(0.5j)
    return KerrLattice(hopping + hopping.conj().T, jnp.asarray([0.3, -0.2, -0.2, 0.3]), 0.5, reflection=[3, 2, 1, 0])


class Modulated(eg.SplitHamiltonian):
    """Everything at once: explicit time, real inputs, two nonlinearities, a PyTree state, four parts."""

    coupling: Array
    depth: Array
    cross: Array

    def parts(self, t, u):
        def local(i):
            return jnp.sum(jnp.log1p(self.depth * i["a"])) + self.cross * i["a"][0] * i["b"] + u * jnp.sum(i["a"])

        matrix = self.coupling * (1 + 0.3 * jnp.sin(2 * t)) * jnp.asarray(RING)
        quartic = Potential(lambda q: 0.1 * jnp.cos(t) * jnp.sum(self.depth * q["a"] ** 4))
        return Kinetic(lambda p: 0.5 * jnp.sum(p["b"] ** 2 * self.cross)), quartic, Intensities(local), Hopping(matrix)


def cases():
    rng = np.random.default_rng(0)
    ring = KerrLattice(jnp.asarray(RING), jnp.zeros(4), jnp.asarray([0.1, 0.2, 0.3, 0.5]))
    plane = NonlinearSchroedinger(jnp.asarray(rng.normal(size=(3, 4))), 0.7, 1.3, spacing=0.8)
    line = NonlinearSchroedinger(jnp.asarray(rng.normal(size=6)), jnp.linspace(-0.3, 0.3, 6), ends="periodic")
    modulated = Modulated(jnp.asarray(0.6), jnp.asarray([0.5, 0.8, 1.1]), jnp.asarray(0.4))
    tree = eg.wave(*({"a": jnp.asarray(rng.normal(size=3)), "b": jnp.asarray(rng.normal())} for _ in "qp"))
    return {
        "PT lattice": (pt_lattice(), complexes(rng, 4), complexes(rng, STEPS, 4), 2),
        "degenerate ring": (ring, complexes(rng, 4), None, 2),
        "plane, open": (plane, complexes(rng, 3, 4), None, 2),
        "line, periodic": (line, complexes(rng, 6), None, 2),
        "modulated": (modulated, tree, jnp.asarray(rng.normal(size=STEPS)), 4),
    }


CASES = cases()


def run(system, psi, inputs, order, dt=0.17, t0=0.4, **options):
    start = eg.InitialValue(*eg.canonical(psi))
    return solve(system, start, inputs, dt=dt, t0=t0, steps=STEPS, integrator=eg.SplitStep(order), **options)


def gradients(case, *which, throw=None):
    *point, order = case

    def loss(point, gradient):
        system, psi, inputs, dt, t0 = point
        sol = run(system, psi, inputs, order, dt, t0, gradient=gradient, throw=throw)
        return mixed((sol.q, sol.p))

    @eqx.filter_jit
    def all_of(point):
        return [eqx.filter_grad(loss)(point, gradient) for gradient in which]

    # Results depend on the start time only if time is explicit.
    start = jnp.asarray(0.4) if isinstance(point[0], Modulated) else 0.4
    return all_of((*point, jnp.asarray(0.17), start))


@functools.cache
def oracle(name):
    """Return the gradient by backpropagation, computed once."""
    (expected,) = gradients(CASES[name], eg.Backprop())
    return expected


@pytest.mark.parametrize("name", CASES)
def test_every_leaf(name):
    (found,) = gradients(CASES[name], eg.Echo(), throw=name in ("PT lattice", "plane, open", "modulated"))
    assert worst(found, oracle(name)) < 1e-9


def test_finite_nudges_have_the_right_slope():
    nudges, betas = (eg.Symmetric, eg.OneSided), jnp.asarray([0.04, 0.02])

    @jax.vmap
    def found(beta):
        return gradients(CASES["degenerate ring"], *(eg.Echo(nudge(beta)) for nudge in nudges), throw=False)

    for of_nudge, slope in zip(jax.device_get(found(betas)), (2, 1), strict=True):
        coarse, fine = (worst(jax.tree.map(lambda x, i=i: x[i], of_nudge), oracle("degenerate ring")) for i in range(2))
        assert np.log2(coarse / fine) == pytest.approx(slope, abs=0.15)


@pytest.mark.parametrize("name", [pytest.param("degenerate ring", marks=pytest.mark.exhaustive), "plane, open"])
def test_a_complex_nudge_passes_through(name):
    (found,) = gradients(CASES[name], eg.Echo(eg.Holomorphic(1e-20, points=2)))
    assert worst(found, oracle(name)) < 1e-9


class Frozen(eg.SplitHamiltonian):
    """A lattice whose hopping part has a wrong action."""

    coupling: Array

    def parts(self, t, u):
        return (Careless(self.coupling * jnp.asarray(RING)),)


class Careless(eg.systems.AbstractPart):
    matrix: Array

    def __call__(self, q, p):
        return Hopping(self.matrix)(q, p)

    def flow(self, q, p, s):
        return Hopping(self.matrix).flow(q, p, s)

    def action(self, q, p, s):
        return -s * self(q, p)


def test_a_wrong_action_of_a_part_is_seen():
    case = (Frozen(jnp.asarray(1.0)), CASES["degenerate ring"][1], None, 2)
    expected, found = gradients(case, eg.Backprop(), eg.Echo())
    assert errors(found, expected)["[0].coupling"] > 1e-2
    assert errors(found, expected)["[1]"] < 1e-9


@pytest.mark.fast
@pytest.mark.parametrize("name", CASES)
def test_it_retraces(name):
    system, psi, inputs, order = CASES[name]
    start = eg.InitialValue(*eg.canonical(psi))
    arguments = {"dt": 0.17, "t0": 0.4, "steps": STEPS, "integrator": eg.SplitStep(order)}
    assert eg.retrace_error(system, start, inputs, **arguments) < 1e-14 * STEPS


def test_the_step_is_symplectic():
    system, psi, _, _ = CASES["plane, open"]
    flat = jnp.concatenate([x.ravel() for x in eg.canonical(psi)])

    def step(x):
        q, p = (y.reshape(3, 4) for y in jnp.split(x, 2))
        sol = solve(system, eg.InitialValue(q, p), dt=0.2, steps=1, save=eg.FinalNode(), gradient=eg.Backprop())
        return jnp.concatenate([sol.q.ravel(), sol.p.ravel()])

    m = jax.jacrev(step)(flat)
    zero, one = jnp.zeros((12, 12)), jnp.eye(12)
    j = jnp.block([[zero, one], [-one, zero]])
    assert jnp.abs(m.T @ j @ m - j).max() < 1e-13


@pytest.mark.parametrize("order", [2, 4, 6])
def test_order(order):
    """Against a fine run of the highest order; time is explicit."""
    system, psi, _, _ = CASES["modulated"]

    @eqx.filter_jit
    def end(order, steps):
        start = eg.InitialValue(*eg.canonical(psi))
        sol = eg.solve(
            system,
            start,
            jnp.zeros(steps),
            dt=1.2 / steps,
            integrator=eg.SplitStep(order),
            save=eg.FinalNode(),
        )
        return jnp.concatenate([sol.q["a"], sol.p["a"]])

    exact = end(8, 48)
    coarse, fine = (12, 24) if order < 6 else (8, 16)
    slope = jnp.log2(jnp.linalg.norm(end(order, coarse) - exact) / jnp.linalg.norm(end(order, fine) - exact))
    assert slope == pytest.approx(order, abs=0.25)


@pytest.mark.fast
def test_leapfrog_is_the_special_case():
    point = chain()
    start = eg.InitialValue(point.q, point.p)

    @eqx.filter_jit
    def both(system):
        def loss(system, integrator):
            sol = eg.solve(system, start, point.inputs, dt=0.2, integrator=integrator)
            return mixed((sol.q, sol.p))

        return [eqx.filter_value_and_grad(loss)(system, i) for i in (eg.Leapfrog(), eg.SplitStep())]

    leapfrog, split = both(point.system)
    assert worst(split, leapfrog) < 1e-13


def test_drive_alone_is_a_line():
    q, p = jnp.asarray([0.3, -1.0]), jnp.asarray([0.1, 0.2])
    source = jnp.asarray([0.5 - 1.0j, 2.0 + 0.3j])
    psi = eg.wave(*Drive(source).flow(q, p, jnp.asarray(0.7)))
    np.testing.assert_allclose(psi, eg.wave(q, p) - 0.7j * source, rtol=1e-14)


@pytest.mark.fast
def test_what_it_refuses():
    class Whole(eg.Hamiltonian):
        def __call__(self, t, q, p, u):
            return jnp.sum(q**2 * p**2)

    start = eg.InitialValue(jnp.ones(2), jnp.ones(2))
    with pytest.raises(TypeError, match="does not define parts"):
        eg.solve(Whole(), start, dt=0.1, steps=2, integrator=eg.SplitStep())
    with pytest.raises(TypeError, match="SplitHamiltonian"):
        parts_of(Whole(), 0.0, None)
    with pytest.raises(ValueError, match=r"SplitStep\(order=3\)"):
        eg.SplitStep(3)
    with pytest.raises(TypeError, match="not a SeparableHamiltonian"):
        eg.solve(
            CASES["degenerate ring"][0],
            eg.InitialValue(jnp.ones(4), jnp.ones(4)),
            dt=0.1,
            steps=2,
            integrator=eg.Leapfrog(),
        )


class Reflected(eg.SeparableHamiltonian):
    """A symmetric chain whose time reversal exchanges its ends."""

    stiffness: Array

    def kinetic(self, t, p):
        return 0.5 * jnp.sum(p**2)

    def potential(self, t, q, u):
        return jnp.sum(self.stiffness * q**4) + jnp.sum(jnp.diff(q) ** 2)

    def mirror(self, q):
        return q[::-1]


@pytest.mark.parametrize("integrator", [eg.Leapfrog(), eg.ImplicitMidpoint()], ids=str)
def test_readings_of_a_mirrored_system_belong_to_the_site_they_were_taken_at(integrator):
    system = Reflected(jnp.asarray([0.3, 0.5, 0.3])) if isinstance(integrator, eg.Leapfrog) else pt_lattice()
    psi = CASES["PT lattice"][1][: 3 if isinstance(system, Reflected) else 4]

    @eqx.filter_jit
    def both(system):
        def loss(system, gradient):
            start = eg.InitialValue(*eg.canonical(psi))
            sol = solve(system, start, dt=0.1, steps=5, integrator=integrator, gradient=gradient, throw=False)
            return mixed((sol.q, sol.p))

        return [eqx.filter_grad(loss)(system, gradient) for gradient in (eg.Backprop(), eg.Echo())]

    expected, found = both(system)
    assert worst(found, expected) < 1e-9
