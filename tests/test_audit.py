"""The audit says of each learning rule what is known of it, by measuring."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import echograd as eg
from damped import network

pytestmark = pytest.mark.slow

STEPS = 6


@pytest.fixture(scope="module")
def report():
    chain = eg.systems.FPUTChain(mass=jnp.asarray([1.0, 2.0, 1.5]), stiffness=jnp.ones(4))
    q, p = jnp.asarray([0.3, -0.2, 0.5]), jnp.asarray([0.1, 0.4, -0.3])
    start = eg.InitialValue(q, p)
    rules = {
        "echo": (start, eg.Echo()),
        "naive": (start, eg.SameBoundary()),
        "mended": (start, eg.SameBoundary(correct=True)),
        "fixed": (eg.FixedEnds(q, -q), eg.Glep()),
    }
    return eg.audit(chain, rules, dt=0.2, steps=STEPS, repeats=1)


@pytest.mark.float64_only
def test_what_is_measured(report):
    echo, naive, mended, fixed = report.rows
    assert (echo.error < 1e-12, naive.error > 0.1, mended.error < 1e-12, fixed.error < 1e-9) == (True,) * 4
    assert naive.cosine < 0.999
    assert (echo.defect, fixed.defect) == (pytest.approx(1), pytest.approx(0, abs=1e-9))
    # One run and one echo; the naive rule as many; its residual one more for each of 9 parameters and 6 of the state.
    assert (echo.passes, naive.passes, mended.passes) == (2, 2, 2 + 9 + 6)
    assert (echo.passes_by_steps, echo.passes_by_parameters) == (0, 0)
    assert mended.passes_by_parameters == 1
    assert fixed.passes > 2
    # An echo's working memory does not know how long the run was; that of a path does.
    assert echo.memory_by_steps < 0.1
    assert fixed.memory_by_steps > 0.5


@pytest.mark.float64_only
def test_what_is_told(report):
    assert [row.forward_only for row in report.rows] == [True, True, False, False]
    assert [row.local for row in report.rows] == [True, True, False, True]
    # A spring's reading takes two positions, a global nonlinearity's all three: of six numbers.
    assert {row.touches for row in report.rows} == {(3, 6)}
    assert "echo" in report.table()
    assert json.loads(report.json())["setting"]["parameters"] == 9


def test_a_charge_without_its_mirror_has_no_forward_run():
    from echograd._audit import verdict

    start = eg.InitialValue(jnp.ones(2), jnp.ones(2))
    assert verdict(start, eg.Glep(), reversible=True)[0]
    assert not verdict(start, eg.Glep(), reversible=False)[0]
    assert not verdict(eg.FinalValue(start.q, start.p), eg.Glep(), reversible=True)[0]


def test_a_gradient_that_is_not_finite_is_not_in_agreement():
    from echograd._audit import agreement

    zero, one, lost = np.zeros(2), np.ones(2), np.asarray([1.0, np.nan])
    assert agreement(zero, zero) == (0, 1)
    assert agreement(one, zero) == (1, 1)
    assert agreement(2 * one, one) == (1, pytest.approx(1))
    for pair in ((lost, zero), (zero, lost), (lost, one), (one, lost), (one, np.inf * one)):
        assert np.isnan(agreement(*pair)).all()


def test_a_system_without_an_energy_is_refused():
    case = network()
    rules = {"reciprocal": (eg.InitialValue(case.q, case.p), eg.Reciprocal())}
    with pytest.raises(TypeError, match=r"an energy is needed.*eg\.diagnose"):
        eg.audit(case.system, rules, case.inputs, dt=case.dt, steps=len(case.inputs))


def test_an_audit_of_nothing_is_refused():
    with pytest.raises(ValueError, match="no rules"):
        eg.audit(eg.systems.FPUTChain(), {}, dt=0.1, steps=3)
    rules = {"echo": (eg.InitialValue(jnp.ones(3), jnp.zeros(3)), eg.Echo())}
    numbers = jax.tree.map(lambda _: 1.0, eg.systems.FPUTChain())
    with pytest.raises(ValueError, match="no floating-point arrays"):
        eg.audit(numbers, rules, dt=0.1, steps=3)


def test_the_integrator_is_the_one_that_solve_would_take():
    start = eg.InitialValue(*eg.canonical(jnp.asarray([1.0, 0.3j])))
    lattice = eg.systems.KerrLattice(jnp.asarray([[0.0, 1.0], [1.0, 0.0]]), 0.1, 0.5)
    report = eg.audit(lattice, {"backprop": (start, eg.Backprop())}, dt=0.1, steps=2, growth=False, repeats=1)
    assert report.setting["integrator"] == "SplitStep"
