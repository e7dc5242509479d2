"""Reciprocal systems: the same lossy machine driven by the reversed error gives the exact gradient."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import echograd as eg
from cases import errors, worst
from damped import (
    circuit,
    cubic,
    dense,
    diodes,
    gyroscope,
    hatano_nelson,
    lopsided,
    loss,
    network,
    normal_form,
    waveguides,
)

pytestmark = [pytest.mark.slow, pytest.mark.least_effort]


def observed(t, q, p):
    return {"x": jnp.sin(q) * t, "y": p**2}


EXACT = {
    "network of springs and dashpots": (network, None),
    "full matrices, moving in time": (dense, observed),
    "RC circuit, overdamped": (circuit, eg.EveryNode(4)),
    "RC circuit in normal form, twisted by 1/C": (normal_form, eg.FinalNode()),
    "Hatano-Nelson, twisted by a reflection": (hatano_nelson, None),
    "gyroscope with friction, twisted by a mirror": (gyroscope, None),
    "lossy waveguides, twisted by conjugation": (waveguides, eg.FinalNode()),
}


def without_twist(case):
    """Leave out the twist, which nothing trains."""
    return case._replace(system=eqx.tree_at(lambda s: s.twist, case.system, None)) if has_twist(case) else case


def has_twist(case):
    return getattr(case.system, "twist", None) is not None


@eqx.filter_jit
def gradient(case, gradient, save=None):
    return eqx.filter_grad(loss)(case, gradient, save=save)


@functools.cache
def oracle(make, save=None):
    """Return the gradient by backpropagation, computed once."""
    expected = without_twist(gradient(make(), eg.Backprop(), save))
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(expected))
    return expected


@pytest.mark.float64_only
@pytest.mark.parametrize(("make", "save"), EXACT.values(), ids=EXACT)
def test_exact(make, save):
    assert worst(without_twist(gradient(make(), eg.Reciprocal(), save)), oracle(make, save)) < 1e-9


@pytest.mark.float64_only
def test_the_convolution_action_of_a_nudged_machine_with_itself():
    """Exact at any strength, since it is a parabola in it; one-sided, the error is proportional to it."""

    def error(nudge, case="RC circuit, overdamped"):
        make, save = EXACT[case]
        return worst(gradient(make(), eg.Reciprocal(nudge), save), oracle(make, save))

    half, hundredfold = (error(eg.Symmetric(jnp.asarray(beta))) for beta in (0.5, 50.0))
    assert max(half, hundredfold, error(eg.Infinitesimal())) < 1e-9
    coarse, fine = (error(eg.OneSided(jnp.asarray(beta))) for beta in (1e-2, 1e-3))
    assert np.log10(coarse / fine) == pytest.approx(1, abs=0.05)
    assert error(eg.Symmetric(0.5), "network of springs and dashpots") < 1e-9


@pytest.mark.float64_only
def test_the_contrast_under_a_twist_sees_the_changes_that_keep_reciprocity():
    """Everything agrees but the damping matrix, whose gradient is that along damping that the mirror undoes."""
    expected, found = oracle(gyroscope), without_twist(gradient(gyroscope(), eg.Reciprocal(eg.Symmetric(0.1))))
    mirror = jnp.diag(jnp.asarray([1.0, -1.0]))
    kept = lambda g: 0.5 * (g + mirror @ g.T @ mirror)  # noqa: E731
    expected, found = (eqx.tree_at(lambda x: x.system.damping, x, replace_fn=kept) for x in (expected, found))
    assert worst(found, expected) < 1e-9


@pytest.mark.float64_only
def test_batches_either_way_round():
    case = circuit(6)
    batch = jax.tree.map(lambda x: jnp.stack([x, 0.7 * x]), case)

    @eqx.filter_jit
    def batched(batch):
        total = lambda batch, g: jnp.sum(jax.vmap(lambda x: loss(x, g))(batch))  # noqa: E731
        inside = jax.vmap(lambda x: eqx.filter_grad(lambda y: loss(y, eg.Reciprocal()))(x))(batch)
        return [eqx.filter_grad(lambda x, g=g: total(x, g))(batch) for g in (eg.Backprop(), eg.Reciprocal())], inside

    (expected, outside), inside = batched(batch)
    assert max(worst(outside, expected), worst(inside, expected)) < 1e-9


def test_without_jit_and_by_default_in_any_precision():
    """And the damping term of the initial state counts: the machine's momentum alone is not dC/dq0 (Thm 6.1a)."""
    case = circuit(5)
    found, default = (eqx.filter_grad(lambda x, g=g: loss(x, g))(case) for g in (eg.Reciprocal(), None))
    expected = gradient(case, eg.Backprop())
    assert worst(default, found) == 0
    assert worst(found, expected) < (1e-9 if jax.config.jax_enable_x64 else 1e-3)
    left_out = found.q - case.system.friction(found.p)
    assert worst(left_out, expected.q) > 0.02


def test_between_two_ends_the_default_is_backpropagation():
    """`Reciprocal` runs from an initial value, and was asked for a plain run too."""
    system = eg.LinearDamped(jnp.ones(1), jnp.full(1, 0.3), jnp.ones(1))
    sol = eg.solve(system, eg.FixedEnds(jnp.zeros(1), jnp.ones(1)), dt=0.1, steps=5)
    np.testing.assert_allclose(sol.q[-1], [1.0], rtol=1e-5)
    with pytest.raises(TypeError, match="Reciprocal"):
        eg.solve(system, eg.FixedEnds(jnp.zeros(1), jnp.ones(1)), dt=0.1, steps=5, gradient=eg.Reciprocal())


# What is refused, and what it would have cost.


REFUSED = {
    "asymmetric mass": (lambda: lopsided("mass"), "not reciprocal"),
    "RC circuit in normal form without its twist": (lambda: normal_form(twist=False), "not reciprocal"),
    "Hatano-Nelson without its twist": (lambda: hatano_nelson(twist=False), "not reciprocal"),
    "gyroscope without its mirror": (lambda: gyroscope(twist=False), "not reciprocal"),
    "nonlinear, overdamped": (diodes, "proven impossible on the same hardware"),
    "nonlinear with general damping": (cubic, "proven impossible on the same hardware"),
}


@pytest.mark.fast
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        # In single precision, some of either reason.
        pytest.param(
            *case, id=name, marks=[] if name.startswith(("Hatano", "nonlinear, o")) else [pytest.mark.float64_only]
        )
        for name, case in REFUSED.items()
    ],
)
def test_refused(make, reason):
    with pytest.raises(eqx.EquinoxRuntimeError, match=reason):
        eqx.filter_jit(eqx.filter_grad(lambda x: loss(x, eg.Reciprocal())))(make())


@pytest.mark.float64_only
@pytest.mark.parametrize(
    "name",
    [
        "Hatano-Nelson without its twist",
        "nonlinear, overdamped",
        "nonlinear with general damping",
        *(
            pytest.param(name, marks=pytest.mark.exhaustive)
            for name in (
                "asymmetric mass",
                "RC circuit in normal form without its twist",
                "gyroscope without its mirror",
            )
        ),
    ],
)
def test_what_is_refused_would_be_wrong(name):
    case = REFUSED[name][0]()

    @eqx.filter_jit
    def both(case):
        choices = eg.Backprop(), eg.Reciprocal()
        of = lambda x, g: loss(x, g, cost=False, momenta=False, throw=False)  # noqa: E731
        return [eqx.filter_grad(of)(case, g) for g in choices]

    expected, found = both(case)
    wrong = errors(found.system, expected.system)
    assert max(wrong.values()) > 0.05


def test_the_contrast_needs_constant_coefficients():
    with pytest.raises(eqx.EquinoxRuntimeError, match="must not change in time"):
        eqx.filter_jit(eqx.filter_grad(lambda x: loss(x, eg.Reciprocal(eg.Symmetric(0.1)))))(dense(5))


def test_the_motion_is_that_of_a_damped_oscillator():
    """Second order in the step; and the capacitor discharges."""
    found = []
    for n in (50, 100):
        h = 4.0 / n
        system = eg.LinearDamped(jnp.asarray(2.0), jnp.asarray(0.8), jnp.asarray(3.0))
        sol = eg.solve(system, eg.InitialValue(jnp.ones(1), v=0.5 * jnp.ones(1)), dt=h, steps=n)
        w, t = np.sqrt(1.5 - 0.04), np.asarray(sol.t)
        exact = np.exp(-0.2 * t) * (np.cos(w * t) + 0.7 / w * np.sin(w * t))
        found.append(np.max(np.abs(np.asarray(sol.q[:, 0]) - exact)))
    assert np.log2(found[0] / found[1]) == pytest.approx(2, abs=0.1)

    discharge = eg.LinearDamped(None, jnp.asarray(2.0), jnp.asarray(1.0))
    sol = eg.solve(discharge, eg.InitialValue(jnp.ones(2), jnp.zeros(2)), dt=0.02, steps=100)
    np.testing.assert_allclose(sol.q[:, 0], np.exp(-np.asarray(sol.t) / 2), rtol=1e-4)
    np.testing.assert_array_equal(sol.p, 0)


@pytest.mark.float64_only
@pytest.mark.parametrize("gradient", [eg.Echo(), eg.Echo(eg.Symmetric(0.1))], ids=str)
def test_an_echo_of_forces_is_refused_at_once(gradient):
    with pytest.raises(TypeError, match="no action"):
        loss(circuit(), gradient)


class Misshapen(eg.Dissipative):
    """Its force is a number."""

    def inertia(self, v):
        return v

    def friction(self, v):
        return v

    def force(self, t, q, u):
        return jnp.sum(q)


@pytest.mark.float64_only
@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: eg.Reciprocal(0.1), TypeError, "Symmetric"),
        (lambda: eg.Reciprocal(tolerance=0.0), ValueError, "positive"),
        (lambda: eg.LinearDamped(None, jnp.ones((2, 3)), jnp.ones(2)), ValueError, "square"),
        (lambda: eg.LinearDamped(jnp.ones(3), jnp.ones(2), jnp.ones(2)), ValueError, "disagree"),
        (lambda: eg.LinearDamped(None, jnp.ones(2), jnp.ones(2), jnp.ones(2)), ValueError, "one row per coordinate"),
        (lambda: loss(circuit()._replace(system=Misshapen()), None), ValueError, "shaped like the coordinates"),
    ],
)
def test_misuse(make, error, match):
    with pytest.raises(error, match=match):
        make()


@pytest.mark.float64_only
def test_reciprocal_is_for_forces():
    class Spring(eg.SeparableHamiltonian):
        def kinetic(self, t, p):
            return 0.5 * jnp.sum(p**2)

        def potential(self, t, q, u):
            return 0.5 * jnp.sum(q**2)

    with pytest.raises(TypeError, match="not a Dissipative system"):
        eg.solve(Spring(), eg.InitialValue(jnp.ones(1), jnp.ones(1)), dt=0.1, steps=3, gradient=eg.Reciprocal())
