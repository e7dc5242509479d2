"""The sweep over the strength of a nudge: noise, truncation, and rejected arguments."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import echograd as eg
from cases import solve

pytestmark = pytest.mark.least_effort


class Pendula(eg.SeparableHamiltonian):
    """Coupled pendula."""

    gravity: jax.Array

    def kinetic(self, t, p):
        return 0.5 * jnp.sum(p**2)

    def potential(self, t, q, u):
        return jnp.sum(self.gravity * (1 - jnp.cos(q))) + 0.2 * jnp.sum(jnp.diff(q) ** 2)


def loss(system, gradient):
    start = eg.InitialValue(jnp.asarray([0.9, -0.4, 0.2]), jnp.asarray([0.3, 0.5, -0.8]))
    sol = solve(system, start, dt=0.1, steps=30, gradient=gradient, save=eg.FinalNode())
    return jnp.sum(jnp.sin(sol.q) * jnp.asarray([1.0, -0.5, 2.0]))


SYSTEM = Pendula(jnp.asarray([1.0, 0.7, 1.3]))


@pytest.mark.float64_only
def test_noise_falls_and_bias_grows_with_the_strength():
    strengths = [1e-3, 1e-2, 0.1, 0.2]
    sweep = eg.nudge_sweep(loss, SYSTEM, [*strengths, "auto", 1e-19], noise=1e-4, repeats=64)
    *rows, auto, lost = sweep.rows
    deviation = [row["deviation"] for row in rows]
    bias = [row["bias"] for row in rows]
    assert math.log10(deviation[0] / deviation[2]) / 2 == pytest.approx(1, abs=0.15)
    assert math.log2(bias[3] / bias[2]) == pytest.approx(2, abs=0.15)
    for row in rows:
        assert row["error"] ** 2 == pytest.approx(row["bias"] ** 2 + row["deviation"] ** 2, rel=0.2)
    # The nudge estimates its bias without knowing the exact gradient.
    assert rows[3]["estimate"] == pytest.approx(rows[3]["bias"], rel=0.1)
    # The best strength lies in between. "auto" takes the noise into account.
    assert sweep.best["error"] < 0.1 * rows[0]["error"]
    assert auto["error"] < 5 * sweep.best["error"]
    assert "lost in rounding" in lost["refused"]
    assert math.isnan(lost["error"])
    assert json.loads(sweep.json())["noise"] == sweep.noise == 1e-4
    assert sweep.nudge == "Symmetric"
    assert [line.split()[0] for line in str(sweep).splitlines()[2:]] == [
        "1.0e-03",
        "1.0e-02",
        "1.0e-01",
        "2.0e-01",
        "auto",
        "1.0e-19",
    ]
    assert "refused" in str(sweep).splitlines()[-1]


@pytest.mark.float64_only
def test_without_noise_there_is_no_deviation_and_a_holomorphic_nudge_reports_its_leak():
    sweep = eg.nudge_sweep(loss, SYSTEM, [0.1, 0.2], nudge=lambda r: eg.Holomorphic(r, 4))
    for row in sweep.rows:
        assert row["deviation"] == 0
        assert row["bias"] == row["error"]
        assert row["estimate"] == pytest.approx(row["error"], rel=0.2)
    errors, leaks = ([row[name] for row in sweep.rows] for name in ("error", "leak"))
    assert math.log2(errors[1] / errors[0]) == pytest.approx(4, abs=0.15)
    assert math.log2(leaks[1] / leaks[0]) == pytest.approx(2, abs=0.15)
    assert sweep.best is sweep.rows[0]


@pytest.mark.float64_only
def test_an_estimate_is_of_the_nudge_alone():
    """A loss may depend on its parameters through a penalty and several solves as well. Parameters may be complex."""

    def penalised(x, gradient):
        gravity, state = x
        for _ in range(2):
            start, system = eg.InitialValue(*state), Pendula(1 + gravity.real * gravity.imag)
            sol = solve(system, start, dt=0.1, steps=15, gradient=gradient, save=eg.FinalNode())
            state = sol.q, sol.p
        return jnp.sum(jnp.sin(state[0])) + 3 * jnp.sum(jnp.abs(gravity) ** 2)

    x = jnp.asarray([1 + 0.3j, 0.6 - 0.8j, 1 + 1j]), (jnp.asarray([0.9, -0.4, 0.2]), jnp.asarray([0.3, 0.5, -0.8]))
    # Strengths may be an array.
    rows = eg.nudge_sweep(penalised, x, np.asarray([0.1, 0.05]), nudge=lambda r: eg.Holomorphic(r, 4)).rows
    for row in rows:
        assert row["estimate"] == pytest.approx(row["error"], rel=0.2)
    leaks = np.asarray([row["leak"] for row in rows])
    assert np.log2(leaks[0] / leaks[1]) == pytest.approx(2, abs=0.2)


@pytest.mark.float64_only
def test_what_is_not_finite_is_never_the_best():
    def unguarded(system, gradient):
        start = eg.InitialValue(jnp.asarray([0.9, -0.4, 0.2]), jnp.asarray([0.3, 0.5, -0.8]))
        sol = eg.solve(system, start, dt=0.1, steps=30, gradient=gradient, save=eg.FinalNode(), throw=False)
        return jnp.sum(sol.q**2)

    sweep = eg.nudge_sweep(unguarded, SYSTEM, [1e308, 0.1])
    assert "not finite" in str(sweep.rows[0]["refused"])
    assert sweep.best is sweep.rows[1]


@pytest.mark.float64_only
def test_a_complex_step_needs_no_estimate():
    """The real nudges that would estimate its error are lost in rounding. The complex step is not."""
    sweep = eg.nudge_sweep(loss, SYSTEM, [1e-20], nudge=lambda r: eg.Holomorphic(r, 2))
    assert sweep.best["error"] < 1e-13
    assert sweep.best["estimate"] is None
    assert str(sweep).splitlines()[-1].split()[-2:] == ["-", "-"]


def test_a_noisy_reading_is_of_the_right_size_and_repeats_with_its_key():
    """After one step of a linear drift, dC/dq₀ is read from the state. Its deviation is σ/(√2 β) per coordinate."""

    class Free(eg.SeparableHamiltonian):
        def kinetic(self, t, p):
            return 0.5 * jnp.sum(p**2)

        def potential(self, t, q, u):
            return 0.0 * jnp.sum(q)

    @jax.jit
    def gradient(key):
        def final(q):
            echo = eg.Echo(eg.Noisy(eg.Symmetric(0.5), 1e-2, key))
            start = eg.InitialValue(q, jnp.zeros_like(q))
            return jnp.sum(solve(Free(), start, dt=0.1, steps=1, gradient=echo, save=eg.FinalNode()).q)

        return jax.grad(final)(jnp.ones(2000))

    found = np.asarray(gradient(jax.random.key(3)))
    assert found.std() == pytest.approx(1e-2 / (math.sqrt(2) * 0.5), rel=0.1)
    assert found.mean() == pytest.approx(1, abs=2e-3)
    np.testing.assert_array_equal(found, gradient(jax.random.key(3)))
    assert np.any(found != gradient(jax.random.key(4)))


@pytest.mark.float64_only
@pytest.mark.parametrize(
    ("options", "error", "complaint"),
    [
        ({"betas": []}, ValueError, "betas is empty"),
        ({"betas": [0.1], "noise": 1.0, "repeats": 1}, ValueError, "at least 2"),
        ({"betas": [0.1, None]}, ValueError, "betas=None is not a real number"),
        ({"betas": np.asarray([0.1, 0.0])}, ValueError, "betas=0.0"),
        ({"betas": [0.1], "nudge": lambda beta: eg.Infinitesimal()}, TypeError, "does not return a finite nudge"),
        ({"betas": [0.1], "nudge": eg.Symmetric(0.1)}, TypeError, "Pass Symmetric itself"),
        ({"betas": [0.1], "params": 1.0}, ValueError, "no floating-point arrays"),
        ({"betas": [0.1], "loss": lambda system, gradient: loss(system, eg.Echo())}, ValueError, "Pass it on"),
    ],
)
def test_misuse_is_refused(options, error, complaint):
    with pytest.raises(error, match=complaint):
        eg.nudge_sweep(**{"loss": loss, "params": SYSTEM, **options})


@pytest.mark.float64_only
def test_a_zero_exact_gradient_is_refused():
    with pytest.raises(ValueError, match="norm 0"):
        eg.nudge_sweep(lambda system, gradient: 0.0 * loss(system, gradient), SYSTEM, [0.1])


def test_there_is_no_best_row_if_all_strengths_were_refused():
    sweep = eg.nudge_sweep(loss, SYSTEM, [1e-19])
    with pytest.raises(ValueError, match="every strength was refused"):
        _ = sweep.best
