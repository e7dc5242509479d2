"""Diagnoses, and tests that the recommended gradient is exact."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import echograd as eg
from cases import chain, machine, mixed, solve, worst
from damped import circuit, cubic, gyroscope, hatano_nelson, lopsided, loss, network, normal_form, waveguides

pytestmark = pytest.mark.least_effort

X64 = jax.config.jax_enable_x64


def of(case, **options):
    return eg.diagnose(case.system, eg.InitialValue(case.q, case.p), case.inputs, dt=case.dt, t0=case.t0, **options)


def with_dashpot(dashpot):
    case = cubic()
    return case._replace(system=eqx.tree_at(lambda s: s.dashpot, case.system, dashpot))


class Drag(eg.Dissipative):
    """Springs, and a drag proportional to the square of the speed."""

    spring: jax.Array

    def inertia(self, v):
        return v

    def friction(self, v):
        return jnp.abs(v) * v

    def force(self, t, q, u):
        return u - self.spring * q


class Turning(eg.Dissipative):
    """Hardening springs, a Coriolis force, and a curl, which has no potential."""

    mass: jax.Array
    damping: jax.Array
    curl: jax.Array

    def inertia(self, v):
        return self.mass * v

    def friction(self, v):
        return self.damping @ v

    def force(self, t, q, u):
        return u - q - 0.5 * q**3 + self.curl * jnp.stack([q[1], -q[0]])


def turning(rate, mass=1.0, curl=0.0):
    case = cubic()
    damping = rate * np.eye(2) + (0.7 * np.array([[0, 1], [-1, 0]]) if mass else 0)
    return case._replace(system=Turning(*map(jnp.asarray, (mass, damping, curl))), p=mass * case.p)


CASES = {
    "springs and dashpots": (network, "linear", eg.Reciprocal, "Reciprocal()"),
    "RC circuit": (circuit, "overdamped", eg.Reciprocal, "Reciprocal()"),
    "Hatano-Nelson": (hatano_nelson, "mass-proportional", eg.Reciprocal, "Reciprocal()"),
    "lopsided in two ways": (lambda: lopsided("stiffness", "damping"), "linear", eg.Backprop, "of all twists none"),
    "nonlinear, unequal damping": (cubic, "linear", eg.Backprop, "this is proven"),
    "nonlinear, equal damping": (
        lambda: with_dashpot(jnp.asarray([0.4, 0.4])),
        "mass-proportional",
        eg.Backprop,
        "MassDamped(system, 0.4)",
    ),
    "nonlinear, no damping": (lambda: with_dashpot(jnp.zeros(2)), "none", eg.Backprop, "SeparableHamiltonian"),
    "nonlinear, gyroscopic": (lambda: turning(0.0), "gyroscopic", eg.Backprop, "Glep() is exact on it"),
    "nonlinear, gyroscopic, damped": (lambda: turning(0.3), "linear", eg.Backprop, "echograd does not have"),
    "nonlinear, overdamped": (lambda: turning(1.0, 0.0), "overdamped", eg.Backprop, "EP() is exact"),
    "nonlinear, not reciprocal": (
        lambda: turning(0.0, curl=0.4),
        "gyroscopic",
        eg.Backprop,
        "No physical gradient is known",
    ),
    "drag": (lambda: cubic()._replace(system=Drag(jnp.ones(2))), "nonlinear", eg.Backprop, "No gradient on the same"),
    "machine": (machine, "none", eg.Echo, "Echo()"),
}


@pytest.mark.parametrize(("make", "damping", "gradient", "advice"), CASES.values(), ids=CASES)
def test_cases(make, damping, gradient, advice):
    found = of(make())
    assert found.damping == damping
    assert isinstance(found.gradient, gradient)
    assert advice in found.recommendation
    assert found.mirror is None
    assert (found.rate is not None) == (damping == "mass-proportional")
    assert str(found).splitlines()[-1] == found.recommendation
    assert len(found.table().splitlines()) == len(found.findings) + 4
    assert json.loads(found.json())["gradient"].startswith(gradient.__name__)


@pytest.mark.float64_only
def test_a_linear_gyroscopic_system_that_no_twist_makes_reciprocal_has_an_energy():
    """No gradient applies to it as written. As a Hamiltonian it has an exact one, `Glep`."""
    turn = jnp.asarray([[0.0, 0.3, -0.7], [-0.3, 0.0, 0.5], [0.7, -0.5, 0.0]])
    springs = jnp.asarray([[2.0, 0.4, -0.1], [0.4, 1.5, 0.3], [-0.1, 0.3, 1.2]])
    q, p = jnp.asarray([0.4, -0.2, 0.3]), jnp.asarray([0.1, 0.5, -0.3])
    found = eg.diagnose(eg.LinearDamped(jnp.ones(3), turn, springs), eg.InitialValue(q, v=p), dt=0.1, steps=30)
    assert (found.damping, found.mirror) == ("gyroscopic", None)
    assert "Glep() is exact on it" in found.recommendation

    class Coriolis(eg.Hamiltonian):
        springs: jax.Array

        def __call__(self, t, q, p, u):
            return 0.5 * jnp.sum((p - 0.5 * turn @ q) ** 2) + 0.5 * q @ self.springs @ q

    found = eg.diagnose(Coriolis(springs), eg.InitialValue(q, v=p), dt=0.1, steps=30)
    assert isinstance(found.gradient, eg.Glep)


@pytest.mark.parametrize(
    ("make", "twist"),
    [
        (hatano_nelson, np.eye(5)[::-1]),
        pytest.param(gyroscope, np.diag([1.0, -1.0]), marks=pytest.mark.exhaustive),
        (waveguides, np.diag([1.0] * 4 + [-1.0] * 4)),
    ],
    ids=["Hatano-Nelson", "gyroscope", "lossy waveguides"],
)
def test_a_missing_twist_is_found(make, twist):
    found = of(make(twist=False))
    assert isinstance(found.gradient, eg.Backprop)
    assert "Reciprocal() is exact" in found.recommendation
    # The tests of Reciprocal show that this twist is exact.
    np.testing.assert_array_equal(np.abs(found.mirror), np.abs(twist))
    declared = eqx.tree_at(
        lambda s: s.twist,
        make(twist=False).system,
        jnp.asarray(found.mirror, make().q.dtype),
        is_leaf=lambda x: x is None,
    )
    assert isinstance(of(make()._replace(system=declared)).gradient, eg.Reciprocal)


def test_any_other_twist_is_found():
    """A diagonal one if there is one, here from the capacitors of the circuit; otherwise a full matrix."""
    case = normal_form()
    bare = case._replace(system=eqx.tree_at(lambda s: s.twist, case.system, None))
    found = of(bare)
    known = np.diag([1.0, 1 / 0.4, 0.5]) * 0.4
    np.testing.assert_allclose(found.mirror * np.sign(found.mirror[0, 0]), known, atol=1e-10 if X64 else 1e-3)
    assert "diag(" in found.recommendation
    assert "the values of the parameters" in found.recommendation

    full = lopsided("stiffness")
    twist = of(full).mirror
    assert np.any(twist - np.diag(np.diag(twist)))

    @eqx.filter_jit
    def gradients(case, twist):
        declared = case._replace(system=eqx.tree_at(lambda s: s.twist, case.system, twist, is_leaf=lambda x: x is None))
        choices = eg.Backprop(), eg.Reciprocal()
        return [eqx.filter_grad(lambda x, g=g: loss(x, g))(declared) for g in choices]

    both = gradients(full, jnp.asarray(twist, full.q.dtype))
    expected, found = (eqx.tree_at(lambda x: x.system.twist, x, None) for x in both)
    assert worst(found, expected) < (1e-9 if X64 else 1e-2)


class Bare(eg.Hamiltonian):
    """A system that does not declare its mirror."""

    inner: eg.Hamiltonian

    def __call__(self, t, q, p, u):
        return self.inner(t, q, p, u)


class Told(eg.Hamiltonian):
    """The same with the mirror that was found."""

    inner: eg.Hamiltonian
    told: tuple = eqx.field(static=True)

    def __call__(self, t, q, p, u):
        return self.inner(t, q, p, u)

    def mirror(self, q):
        return jnp.asarray(self.told, q.dtype) @ q

    def mirror_input(self, u):
        return None if u is None else self.mirror(u)


def charge():
    system = eg.systems.ChargedParticle(field=1.5)
    drive = jnp.stack([jnp.sin(jnp.arange(12.0)), jnp.cos(0.5 * jnp.arange(12.0))], 1)
    return system, *system.start(), drive


def kerr():
    """Complex hops: time reversal needs the reflection, which leaves the on-site energies as they are."""
    hop = jnp.asarray([0.5 + 0.3j, -0.4 + 0.2j, 0.5 + 0.3j])
    matrix = jnp.diag(hop, 1)
    matrix = matrix + matrix.conj().T + jnp.diag(jnp.asarray([0.3, -0.2, -0.2, 0.3])).astype(matrix.dtype)
    system = eg.systems.KerrLattice(matrix, 0.5)
    return system, *eg.canonical(jnp.asarray([1.0, 0.3j, 0.5 - 0.2j, -0.4])), None


@pytest.mark.float64_only
@pytest.mark.parametrize("make", [charge, kerr], ids=["charge in a field", "Kerr lattice with complex hops"])
def test_a_missing_mirror_is_found_and_works(make):
    inner, q, p, inputs = make()
    start = eg.InitialValue(q, p)
    timing = {"dt": 0.15, "steps": 12}
    found = eg.diagnose(Bare(inner), start, inputs, **timing)
    assert isinstance(found.gradient, eg.Glep)
    assert ("`mirror_input`" in found.recommendation) == (inputs is not None)
    told = Told(inner, tuple(map(tuple, found.mirror.tolist())))
    again = eg.diagnose(told, start, inputs, **timing)
    assert isinstance(again.gradient, eg.Echo)
    assert again.mirror is None

    if make is kerr:  # tests/systems/test_mirrors.py measures the gradients of such a lattice
        return

    def loss(system, gradient):
        sol = solve(system, start, inputs, **timing, gradient=gradient, throw=False)
        return mixed((sol.q, sol.p))

    @eqx.filter_jit
    def gradients(told):
        bare = eqx.filter_grad(loss)(Bare(told.inner), found.gradient)
        return bare.inner, *(eqx.filter_grad(loss)(told, g).inner for g in (again.gradient, eg.Backprop()))

    standing, echo, expected = gradients(told)
    assert max(worst(standing, expected), worst(echo, expected)) < 1e-9


class Lopsided(eg.Hamiltonian):
    """Odd in the momentum under every mirror."""

    strength: jax.Array

    def __call__(self, t, q, p, u):
        odd = p[0] * (q[1] + q[0] * q[1] ** 2) + p[1] * jnp.sin(q[0] + 0.3) + p[0] * p[1] ** 2
        return 0.5 * jnp.sum(p**2) + 0.3 * jnp.sum(q**4) + self.strength * odd


def test_no_mirror_at_all():
    start = eg.InitialValue(jnp.asarray([0.4, 0.9]), jnp.asarray([0.5, -0.2]))
    found = eg.diagnose(Lopsided(jnp.asarray(0.3)), start, dt=0.1, steps=9)
    assert isinstance(found.gradient, eg.Glep)
    assert found.mirror is None
    assert "no time reversal was found" in found.recommendation


def test_mass_damped_systems_that_remember_or_forget_their_start():
    point = chain(190)
    damped = eg.MassDamped(point.system, 2.0)
    for system in (damped, eg.Envelope(point.system, 2.0)):
        short = eg.diagnose(system, eg.InitialValue(point.q, point.p), point.inputs[:10], dt=0.2)
        assert (short.damping, short.rate) == ("mass-proportional", 2.0)
        assert isinstance(short.gradient, eg.Echo)
    forgotten = eg.diagnose(damped, eg.InitialValue(point.q, point.p), point.inputs, dt=0.2)
    assert isinstance(forgotten.gradient, eg.Backprop)
    assert "exact=True" in forgotten.recommendation


@pytest.mark.fast
def test_a_trajectory_determines_the_timing():
    case = circuit()
    sol = eg.solve(case.system, eg.InitialValue(case.q, case.p), case.inputs, dt=case.dt, t0=case.t0)
    found = eg.diagnose(case.system, sol, case.inputs)
    assert isinstance(found.gradient, eg.Reciprocal)
    with pytest.raises(ValueError, match="every node"):
        eg.diagnose(
            case.system,
            eg.solve(case.system, eg.InitialValue(case.q, case.p), case.inputs, dt=case.dt, save=eg.FinalNode()),
        )


def test_a_trajectory_of_another_system_is_refused():
    case = chain(20)
    start, timing = eg.InitialValue(case.q, case.p), {"dt": case.dt, "t0": 3.0}
    sol = eg.solve(case.system, start, case.inputs, **timing)
    assert isinstance(eg.diagnose(case.system, sol, case.inputs).gradient, eg.Echo)
    sparse = eg.solve(case.system, start, case.inputs, **timing, save=eg.EveryNode(5))
    heavier = eqx.tree_at(lambda s: s.mass, case.system, 1.1 * case.system.mass)
    lost = eqx.tree_at(lambda s: s.q, sol, sol.q.at[7].set(jnp.nan))
    for system, run, inputs, integrator in (
        (case.system, sparse, case.inputs[::5], None),
        (heavier, sol, case.inputs, None),
        (case.system, sol, case.inputs + 0.1, None),
        (case.system, sol, case.inputs, eg.VelocityVerlet()),
        (case.system, lost, case.inputs, None),
    ):
        with pytest.raises(ValueError, match="not one of this system"):
            eg.diagnose(system, run, inputs, integrator=integrator)
    for beside in ({"dt": 0.1}, {"steps": 20}, {"t0": 3.0}):
        with pytest.raises(ValueError, match="Leave them out"):
            eg.diagnose(case.system, sol, case.inputs, **beside)


def test_a_supplied_mirror_is_tried_first_and_must_fit():
    """A twist that is not a signed permutation: 1/C of a circuit in normal form."""
    case = normal_form()
    twist = case.system.twist
    bare = case._replace(system=eqx.tree_at(lambda s: s.twist, case.system, None))
    found = of(bare, mirrors=[twist])
    np.testing.assert_array_equal(found.mirror, twist)
    with pytest.raises(ValueError, match="shape"):
        of(bare, mirrors=[jnp.eye(2)])


@pytest.mark.fast
def test_dt_is_needed():
    with pytest.raises(ValueError, match="give dt"):
        eg.diagnose(chain().system, eg.InitialValue(jnp.ones(3), jnp.ones(3)), steps=3)


def test_the_mirror_of_a_lattice_is_declared_as_its_reflection():
    """A ring of seven sites has seven reflections; this one exchanges two neighbours."""
    reflection = [1, 0, 6, 5, 4, 3, 2]
    ring, index = np.eye(7)[reflection], np.arange(7)
    hop = np.exp(1j * np.outer(index + 1, index**2 + 1)) * 0.2
    hop = hop + hop.conj().T
    hop = jnp.asarray(hop + ring @ hop.conj() @ ring)
    start, timing = eg.InitialValue(*eg.canonical(jnp.asarray(np.exp(0.7j * index)))), {"dt": 0.1, "steps": 8}
    found = eg.diagnose(eg.systems.KerrLattice(hop, 0.1, 0.5), start, **timing)
    assert f"Give the KerrLattice reflection={reflection}" in found.recommendation
    declared = eg.systems.KerrLattice(hop, 0.1, 0.5, found.mirror.argmax(1))
    assert isinstance(eg.diagnose(declared, start, **timing).gradient, eg.Echo)
