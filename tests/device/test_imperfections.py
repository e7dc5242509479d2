"""Imperfections: no effect at strength zero, the documented effect on motion and gradient at any other."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import echograd as eg
from echograd.device import (
    AbstractImperfection,
    Drift,
    ForceNoise,
    Friction,
    Hosted,
    ImperfectMirror,
    Mismatch,
    Quantisation,
    ReadoutNoise,
    RunId,
    Simulated,
    run,
    survey,
)

pytestmark = pytest.mark.least_effort

KEY = jax.random.key(0)
MAKE = {
    "mismatch": lambda s: Mismatch(s, KEY),
    "drift": lambda s: Drift(s, KEY),
    "friction": Friction,
    "force noise": lambda s: ForceNoise(s, KEY),
    "readout noise": lambda s: ReadoutNoise(s, KEY),
    "mirror": lambda s: ImperfectMirror(1 - s, s, KEY),
    "quantisation": lambda s: Quantisation(s, s),
}
MANY = 4000
STATE = jnp.linspace(-1.0, 1.0, MANY), {"a": jnp.linspace(2.0, 3.0, MANY)}


def run_id(experiment=0, number=0):
    return RunId(jnp.asarray(experiment), jnp.asarray(number))


def effects(imperfection, z=STATE, when=None, k=3):
    """Return the result of every method of an imperfection, by name."""
    when, k, dt = run_id() if when is None else when, jnp.asarray(k), jnp.asarray(0.25)
    return {
        "realised": imperfection.realised(z, when),
        "reversed": imperfection.reversed(z, when),
        "kicked": imperfection.kicked(z, when),
        "moved": imperfection.moved(z, dt, k, when),
        "seen": imperfection.seen(z, k, when),
    }


@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
@pytest.mark.parametrize("zero", [0.0, jnp.zeros(())], ids=["number", "array"])
def test_at_strength_zero_nothing_is_wrong_bit_for_bit(make, zero):
    for found in effects(make(zero)).values():
        jax.tree.map(np.testing.assert_array_equal, found, STATE)
    assert any(
        np.any(x != y)
        for z in effects(make(0.3)).values()
        for x, y in zip(*map(jax.tree.leaves, (z, STATE)), strict=True)
    )


SIGMA = 0.3
# The method that acts, the standard deviations of coordinates and momenta, and the mean of the momenta.
SIZES = {
    "mismatch": ("realised", lambda q: SIGMA * jnp.abs(q), lambda p: SIGMA * p, lambda p: p),
    "drift": ("realised", lambda q: SIGMA * jnp.abs(q), lambda p: SIGMA * p, lambda p: p),
    "friction": ("moved", lambda q: 0 * q, lambda p: 0 * p, lambda p: math.exp(-SIGMA * 0.25) * p),
    "force noise": ("moved", lambda q: 0 * q, lambda p: 0 * p + SIGMA * 0.5, lambda p: p),
    "readout noise": ("seen", lambda q: 0 * q + SIGMA, lambda p: 0 * p + SIGMA, lambda p: p),
    "mirror": ("reversed", lambda q: 0 * q, lambda p: 0 * p + SIGMA, lambda p: (1 - SIGMA) * p),
}


@pytest.mark.parametrize("name", SIZES)
def test_it_is_as_large_as_stated_where_it_acts_and_nowhere_else(name):
    where, dq, dp, mean = SIZES[name]
    found = effects(MAKE[name](SIGMA))
    for place, z in found.items():
        if place != where:
            jax.tree.map(np.testing.assert_array_equal, z, STATE)
    (q, p), (q0, p0) = found[where], STATE
    assert np.std(q - q0) == pytest.approx(np.sqrt(np.mean(dq(q0) ** 2)), rel=0.05, abs=1e-12)
    off = p["a"] - mean(p0["a"])
    assert np.std(off) == pytest.approx(np.sqrt(np.mean(dp(p0["a"]) ** 2)), rel=0.05, abs=1e-6)
    assert abs(np.mean(off)) < 5 * np.std(off) / MANY**0.5 + 1e-6


@pytest.mark.parametrize("name", ["drift", "force noise", "readout noise", "mirror", "mismatch"])
def test_what_is_drawn_anew(name):
    """All but a mismatch are drawn anew in every run and experiment, and in every step if they act there."""
    where, make = SIZES[name][0], MAKE[name](SIGMA)
    first, again, run_1, experiment_1, step = (
        np.asarray(effects(make, when=when, k=k)[where][1]["a"])
        for when, k in [*[(run_id(), 3)] * 2, (run_id(0, 1), 3), (run_id(1), 3), (run_id(), 4)]
    )
    np.testing.assert_array_equal(first, again)
    for other in (run_1, experiment_1):
        assert np.array_equal(first, other) == (name == "mismatch")
    assert np.array_equal(first, step) == (where in ("realised", "reversed"))


def test_converters_have_steps():
    found = effects(Quantisation(readout=0.25, kicks=0.5))
    for place, step in (("seen", 0.25), ("kicked", 0.5)):
        for x, x0 in zip(*map(jax.tree.leaves, (found[place], STATE)), strict=True):
            np.testing.assert_array_equal(x, np.round(x / step) * step)
            assert 0.4 * step < np.max(np.abs(x - x0)) <= 0.5 * step
    for place in ("realised", "reversed", "moved"):
        jax.tree.map(np.testing.assert_array_equal, found[place], STATE)


class Pendulums(eg.SeparableHamiltonian):
    gravity: jax.Array

    def kinetic(self, t, p):
        return 0.5 * jnp.sum(p**2)

    def potential(self, t, q, u):
        return jnp.sum(self.gravity * (1 - jnp.cos(q))) + 0.2 * jnp.sum(jnp.diff(q) ** 2)


SYSTEM = Pendulums(jnp.asarray([1.0, 0.7, 1.3]))
START = eg.InitialValue(jnp.asarray([0.9, -0.4, 0.2]), jnp.asarray([0.3, 0.5, -0.8]))


def loss(sol):
    return jnp.sum(jnp.sin(sol.q[-1]) * jnp.asarray([1.0, -0.5, 2.0]))


@pytest.mark.float64_only
def test_a_mismatched_machine_gives_its_own_gradient_and_not_that_of_its_model():
    nudge, options = eg.Symmetric(0.01), {"dt": 0.1, "steps": 20, "throw": False}
    mismatch = Mismatch(0.2, KEY)
    real = eqx.tree_at(lambda s: s.gravity, SYSTEM, mismatch.realised(SYSTEM, run_id()).gravity)

    @jax.jit
    def gradients(commanded, real):
        device, echo = Simulated([mismatch]), eg.Echo(nudge)
        found = eqx.filter_grad(lambda s: loss(run(device, s, START, **options, nudge=nudge)))(commanded)
        expected = [
            eqx.filter_grad(lambda s: loss(eg.solve(s, START, **options, gradient=echo)))(s) for s in (real, commanded)
        ]
        return [x.gravity for x in (found, *expected)]

    found, expected, ideal = gradients(SYSTEM, real)
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    assert np.linalg.norm(found - ideal) > 0.02 * np.linalg.norm(ideal)


def test_readout_noise_is_divided_by_the_nudge():
    """One step and a linear drift: dC/dq₀ is read off the last state, so it is off by σ/(√2 β) per coordinate."""

    class Free(eg.SeparableHamiltonian):
        def kinetic(self, t, p):
            return 0.5 * jnp.sum(p**2)

        def potential(self, t, q, u):
            return 0.0 * jnp.sum(q)

    @jax.jit
    def gradient(experiment):
        device = Simulated([ReadoutNoise(1e-2, KEY)])

        def final(q):
            start, options = eg.InitialValue(q, jnp.zeros_like(q)), {"dt": 0.1, "steps": 1, "throw": False}
            return jnp.sum(run(device, Free(), start, **options, nudge=eg.Symmetric(0.5), experiment=experiment).q[-1])

        return jax.grad(final)(jnp.ones(2000))

    found = np.asarray(gradient(0))
    assert found.std() == pytest.approx(1e-2 / (math.sqrt(2) * 0.5), rel=0.1)
    assert found.mean() == pytest.approx(1, abs=2e-3)
    np.testing.assert_array_equal(found, gradient(0))
    assert np.any(found != gradient(1))


DRAWN = {"mismatch": Mismatch, "drift": Drift, "readout noise": ReadoutNoise}


@pytest.mark.float64_only
def test_a_survey_tells_what_is_systematic_and_what_is_divided_by_the_nudge():
    """Check exponents, and the effect of nudge and averaging on errors, in two surveys."""
    kinds = {**DRAWN, "friction": lambda s, key: Friction(s / 3)}
    options = {"dt": 0.1, "steps": 30, "strengths": (1e-3, 1e-2), "repeats": 16, "imperfections": kinds}
    strong, weak = (survey(loss, SYSTEM, START, **options, nudge=eg.Symmetric(jnp.asarray(b))) for b in (0.04, 0.01))
    rows = [{(row["imperfection"], row["strength"]): row for row in found.rows} for found in (strong, weak)]
    # The only error of a perfect machine is that of the finite nudge, of second order.
    assert math.log(strong.floor / weak.floor, 4) == pytest.approx(2, abs=0.1)
    for name in ("friction", "drift", "readout noise"):
        assert weak.exponents[name][0] == pytest.approx(1, abs=0.15)
    for name in ("drift", "readout noise"):
        # It differs between echoes, so a nudge four times as strong divides its error by four. It averages out.
        error, less = (found[name, 1e-2]["error"] for found in rows[::-1])
        assert error / less == pytest.approx(4, rel=0.3)
        assert rows[1][name, 1e-2]["bias"] < 0.5 * error
    # Friction is the same in all echoes: neither a stronger nudge nor averaging helps.
    row, other = (found["friction", 1e-2] for found in rows)
    assert row["error"] == pytest.approx(other["error"], rel=0.1)
    assert row["bias"] == pytest.approx(row["error"])
    assert row["retrace"] > 1e-3
    # The gradient is that of the mismatched machine, not that of the ideal model.
    for found, floor in zip(rows, (strong.floor, weak.floor), strict=True):
        row = found["mismatch", 1e-2]
        assert row["error"] < 1.5 * floor
        assert row["ideal_error"] > 10 * row["error"]
    assert weak.exponents["mismatch"] == (None, pytest.approx(1, abs=0.15))
    lines = str(weak).splitlines()
    assert len(lines) == 2 + len(weak.rows)
    assert lines[2].split()[:2] == ["mismatch", "1e-03"]
    assert weak.repeats == 16


class Anharmonic(eg.Lagrangian):
    mass: jax.Array

    def __call__(self, t, q, v, u):
        return jnp.sum(self.mass * v**2 / 2 - q**2 / 2 - q**4 / 4)


@pytest.mark.float64_only
def test_a_lagrangian_is_surveyed_with_its_initial_velocity():
    """The momentum of the initial velocity depends on the mass, in the exact gradients too."""
    start = eg.InitialValue(jnp.asarray([1.0, 0.5]), v=jnp.asarray([0.3, -0.2]))
    options = {"nudge": eg.Symmetric(1e-3), "strengths": (1e-6,), "repeats": 2, "dt": 0.1, "steps": 4}
    model, kinds = Anharmonic(jnp.asarray([1.0, 2.0])), {"friction": lambda s, key: Friction(s)}
    found = survey(lambda sol: jnp.sum(sol.q[-1] ** 2), model, start, imperfections=kinds, **options)
    assert found.floor < 1e-5
    assert found.rows[0]["ideal_error"] < 1e-4


class Motor(AbstractImperfection):
    """Momenta that grow without bound."""

    rate: jax.Array

    def moved(self, z, dt, k, run_id):
        return z[0], jnp.exp(self.rate * dt) * z[1]


def test_a_machine_that_runs_away_in_a_survey_is_named():
    kinds = {"a motor": lambda s, key: Motor(1e4 * s)}
    with pytest.raises(ValueError, match=r"not finite.* a motor at 1\. The machine runs away"):
        surveyed(imperfections=kinds, strengths=(1e-9, 1.0))


def surveyed(loss=loss, **options):
    return survey(loss, SYSTEM, START, dt=0.1, steps=3, nudge=eg.Symmetric(0.1), **options)


@pytest.mark.float64_only
@pytest.mark.parametrize(
    ("use", "error", "complaint"),
    [
        (lambda: Friction(-1.0), ValueError, "not negative"),
        (lambda: Mismatch(math.nan, KEY), ValueError, "finite"),
        (lambda: ReadoutNoise(jnp.ones(2), KEY), ValueError, "one number"),
        (lambda: ForceNoise(jnp.asarray(-1.0), KEY), ValueError, "not negative"),
        (lambda: Quantisation(kicks="8 bits"), ValueError, "not a real number"),
        (lambda: ImperfectMirror(0.9, noise=0.1), ValueError, "random key"),
        (lambda: Simulated([eg.Leapfrog()]), TypeError, "not an imperfection"),
        (lambda: Simulated(integrator=eg.Leapfrog(exact=True)), ValueError, "fixed point"),
        (lambda: surveyed(strengths=()), ValueError, "strengths"),
        (lambda: surveyed(strengths=(0.1, -0.1)), ValueError, "positive"),
        (lambda: surveyed(repeats=1), ValueError, "at least 2"),
        (lambda: surveyed(machine=Hosted(lambda order: None)), TypeError, "Simulated"),
        (lambda: surveyed(lambda sol: 0.0 * loss(sol)), ValueError, "gradient of the ideal model is zero"),
    ],
)
def test_wrong_use_is_refused(use, error, complaint):
    with pytest.raises(error, match=complaint):
        use()
