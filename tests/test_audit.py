"""The audit: what it measures of each learning rule, and what it derives."""

import json
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import echograd as eg
from damped import circuit

pytestmark = [pytest.mark.slow, pytest.mark.least_effort]

STEPS = 6


@pytest.fixture(scope="module")
def report():
    four = jnp.ones(4)
    chain = eg.systems.FPUTChain(jnp.asarray([1.0, 2.0, 1.5]), four, alpha=0.25 * four, beta=0 * four)
    q, p = jnp.asarray([0.3, -0.2, 0.5]), jnp.asarray([0.1, 0.4, -0.3])
    start = eg.InitialValue(q, p)
    growing = {
        "path": (start, eg.Backprop()),
        "echo": (start, eg.Echo()),
        "mended": (start, eg.SameBoundary(correct=True)),
    }
    others = {"naive": (start, eg.SameBoundary()), "fixed": (eg.FixedEnds(q, -q), eg.Glep())}
    found = eg.audit(chain, growing, dt=0.2, steps=STEPS, growth=True, repeats=1)
    rest = eg.audit(chain, others, dt=0.2, steps=STEPS, repeats=1)
    return eg.AuditReport([*found.rows, *rest.rows], found.setting)


@pytest.mark.float64_only
def test_measured_numbers(report):
    path, echo, mended, naive, fixed = report.rows
    assert (echo.error < 1e-12, naive.error > 0.1, mended.error < 1e-12, fixed.error < 1e-9) == (True,) * 4
    assert naive.cosine < 0.999
    assert (echo.defect, fixed.defect) == (pytest.approx(1), pytest.approx(0, abs=1e-9))
    # One run and one echo; the naive rule as many; its residual one more for each of 15 parameters and 6 of the state.
    assert (echo.passes, naive.passes, mended.passes) == (2, 2, 2 + 15 + 6)
    assert (echo.passes_by_steps, echo.passes_by_parameters) == (0, 0)
    assert mended.passes_by_parameters == 1
    assert fixed.passes > 2
    # The working memory of an echo does not grow with the number of steps; that of a path does.
    assert echo.memory_by_steps < 0.1
    assert path.memory_by_steps > 0.5


@pytest.mark.float64_only
def test_derived_verdicts(report):
    assert [row.forward_only for row in report.rows] == [False, True, False, True, False]
    assert [row.local for row in report.rows] == [False, True, False, True, True]
    # A spring's reading takes the coordinates of its two ends, of three.
    assert {row.touches for row in report.rows} == {(2, 3)}
    assert "echo" in report.table()
    assert json.loads(report.json())["setting"]["parameters"] == 15


class Bare(eg.Hamiltonian):
    """A system without the mirror that it has."""

    inner: eg.Hamiltonian

    def __call__(self, t, q, p, u):
        return self.inner(t, q, p, u)


@pytest.mark.float64_only
def test_a_charge_without_its_mirror_has_no_forward_run():
    charge, chain = eg.systems.ChargedParticle(), eg.systems.FPUTChain()

    def forward_only(system, boundary):
        return eg.audit(system, {"dual": (boundary, eg.Glep())}, dt=0.1, steps=1, repeats=1).rows[0].forward_only

    assert not forward_only(Bare(charge), eg.InitialValue(*charge.start()))
    q, p = jnp.asarray([0.3, -0.2]), jnp.asarray([0.1, 0.4])
    assert forward_only(chain, eg.InitialValue(q, p))
    assert not forward_only(chain, eg.FinalValue(q, p))


class Scaled(eg.gradients.AbstractGradient):
    """Backpropagation with the gradient multiplied by a factor."""

    factor: float = eqx.field(static=True)

    def run(self, problem, z0):
        out = eg.Backprop().run(problem, z0)
        factor = out.cost.dtype.type(self.factor)
        return eqx.tree_at(lambda x: x.cost, out, factor * out.cost + jax.lax.stop_gradient((1 - factor) * out.cost))

    def run_two_point(self, problem, guess, newton):
        raise AssertionError("these rules have initial values")


@pytest.mark.float64_only
def test_gradients_that_are_not_finite_do_not_agree():
    """A gradient of zero agrees with nothing but another zero."""
    chain, start = eg.systems.FPUTChain(), eg.InitialValue(jnp.asarray([0.3, -0.2]), jnp.asarray([0.1, 0.4]))
    at_rest = eg.InitialValue(jnp.zeros(2), jnp.zeros(2))
    rules = {
        "double": (start, Scaled(2.0)),
        "zero": (start, Scaled(0.0)),
        "lost": (start, Scaled(np.nan)),
        "both zero": (at_rest, eg.Echo()),
    }
    report = eg.audit(chain, rules, dt=0.1, steps=3, repeats=1)
    double, zero, lost, both = report.rows
    assert (double.error, double.cosine) == (pytest.approx(1), pytest.approx(1))
    assert (zero.error, zero.cosine) == (1, 0)
    assert np.isnan([lost.error, lost.cosine]).all()
    assert (both.error, both.cosine) == (0, 1)
    assert json.loads(report.json())["rows"][2]["error"] is None
    assert json.loads(eg.AuditReport([], {"error": np.nan}).json())["setting"] == {"error": None}


@pytest.mark.float64_only
def test_a_lossy_machine():
    """It has no energy, no dual and no echo. `Reciprocal` takes as many passes as an echo, and is as local."""
    case = circuit()
    start = eg.InitialValue(case.q, case.p)
    rules = {
        "reciprocal": (start, eg.Reciprocal()),
        "contrast": (start, eg.Reciprocal(eg.Symmetric(0.1))),
        "backprop": (start, eg.Backprop()),
    }

    def audit(system, rules):
        return eg.audit(system, rules, case.inputs, dt=case.dt, steps=len(case.inputs), growth=False, repeats=1).rows

    rows = audit(case.system, rules)
    assert max(row.error for row in rows) < 1e-9
    assert [row.passes for row in rows] == [2, 3, 1]
    assert [row.defect for row in rows] == [None] * 3
    assert [row.forward_only for row in rows] == [row.local for row in rows] == [True, True, False]
    # A resistor takes the voltages at its two ends, of three.
    assert {row.touches for row in rows} == {(2, 3)}
    assert " - " in eg.AuditReport(rows, {}).table().splitlines()[-1]
    assert "Dissipative" in audit(case.system, {"echo": (start, eg.Echo())})[0].refused
    # A twist that mixes all three voltages makes every reading take them together.
    mixing = jnp.asarray([[1.0, 0.2, 0.1], [0.2, 1.0, -0.2], [0.1, -0.2, 1.0]])
    twisted = eg.LinearDamped(None, jnp.ones(3), jnp.ones(3), twist=mixing)
    assert audit(twisted, {"backprop": (start, eg.Backprop())})[0].touches == (3, 3)


def test_a_function_is_not_a_system():
    start = eg.InitialValue(jnp.ones(3), jnp.zeros(3))
    with pytest.raises(TypeError, match="the system is a function, not a Hamiltonian"):
        eg.audit(lambda t, q: q, {"echo": (start, eg.Echo())}, dt=0.1, steps=3)


def test_an_audit_without_rules_or_parameters_is_refused():
    with pytest.raises(ValueError, match="no rules"):
        eg.audit(eg.systems.FPUTChain(), {}, dt=0.1, steps=3)
    rules = {"echo": (eg.InitialValue(jnp.ones(3), jnp.zeros(3)), eg.Echo())}
    numbers = jax.tree.map(lambda _: 1.0, eg.systems.FPUTChain())
    with pytest.raises(ValueError, match="no floating-point arrays"):
        eg.audit(numbers, rules, dt=0.1, steps=3)


def test_the_default_integrator_is_that_of_solve():
    start = eg.InitialValue(*eg.canonical(jnp.asarray([1.0, 0.3j])))
    lattice = eg.systems.KerrLattice(jnp.asarray([[0.0, 1.0], [1.0, 0.0]]), 0.1, 0.5)
    report = eg.audit(lattice, {"backprop": (start, eg.Backprop())}, dt=0.1, steps=2, growth=False, repeats=1)
    assert report.setting["integrator"] == "SplitStep"


class Coupled(eg.SeparableHamiltonian):
    """Unit masses under a potential of their coordinates and one array of parameters."""

    strength: jax.Array
    energy: Callable = eqx.field(static=True)

    def kinetic(self, t, p):
        return 0.5 * jnp.sum(p**2)

    def potential(self, t, q, u):
        return self.energy(self.strength, q)


@pytest.mark.float64_only
@pytest.mark.parametrize(
    ("strength", "energy", "taken", "local"),
    [
        (0.1, lambda g, q: g * jnp.sum(q**4), 1, True),
        (0.1, lambda g, q: g * jnp.sum(jnp.diff(q) ** 4), 3, True),
        (jnp.full(4, 0.1), lambda g, q: jnp.sum(g * jnp.diff(q) ** 4), 2, True),
        pytest.param(jnp.full((5, 5), 0.1), lambda g, q: q @ g @ q, 2, True, marks=pytest.mark.exhaustive),
        pytest.param(0.1, lambda g, q: g * jnp.sum(q) ** 2, 5, False, marks=pytest.mark.exhaustive),
        (jnp.full(5, 0.1), lambda g, q: jnp.sum(g * q) * jnp.sum(q), 5, False),
        (0.1, lambda g, q: jnp.exp(g * jnp.sum(q)), 5, False),
    ],
    ids=["sites", "chain", "springs", "all to all", "mean field", "mean field of each", "nonlinear in all"],
)
def test_local_means_read_in_a_neighbourhood(strength, energy, taken, local):
    """A reading that takes all coordinates together is not local, in a separable system too."""
    q = jnp.asarray([0.1, 0.2, -0.1, 0.3, 0.0])
    rules = {"echo": (eg.InitialValue(q, q), eg.Echo())}
    (row,) = eg.audit(Coupled(jnp.asarray(strength), energy), rules, dt=0.01, steps=1, repeats=1).rows
    assert (row.touches, row.local) == ((taken, 5), local)
    assert ("reading of strength takes 5 of 5" in row.why) is not local


def test_a_rule_that_fails_is_a_row_and_the_others_go_on():
    """A mean field is not read locally. The inputs determine the number of steps."""

    def energy(g, q):
        return g * jnp.sum(q) ** 2

    q, three = jnp.asarray([0.1, 0.2, -0.1, 0.3]), jnp.ones(3)
    rules = {
        "two ends": (eg.FixedEnds(q, q), eg.Echo()),
        "echo": (eg.InitialValue(q, q), eg.Echo()),
        "another size": (eg.InitialValue(three, three), eg.Glep()),
    }
    told = []
    system = Coupled(jnp.asarray(0.1), lambda g, q: energy(g, q.reshape(2, 2)))
    report = eg.audit(system, rules, jnp.ones(3), dt=0.1, repeats=1, progress=told.append)
    assert told == ["1 of 3: two ends", "2 of 3: echo", "3 of 3: another size"]
    refused, echo, size = report.rows
    assert report.setting["steps"] == 3
    assert "InitialValue only" in refused.refused
    assert "solve: potential(t, q, u) failed" in size.refused
    assert (echo.refused, echo.forward_only, echo.local, echo.touches) == (None, True, False, (4, 4))
    assert "strength takes 4 of 4 coordinates together" in echo.why
    assert "refused" in report.table().splitlines()[2]
    assert json.loads(report.json())["rows"][0]["error"] is None
