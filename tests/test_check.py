"""The gradient checker accepts right gradients and detects wrong ones."""

import json
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import echograd as eg
from cases import solve
from echograd.gradients import AbstractGradient

pytestmark = pytest.mark.least_effort


class Pendulums(eg.SeparableHamiltonian):
    mass: Array
    gravity: Array
    unused: Array

    def kinetic(self, t, p):
        return jnp.sum(p**2 / (2 * self.mass))

    def potential(self, t, q, u):
        return -self.gravity * jnp.sum(jnp.cos(q))


class Distorted(AbstractGradient):
    """A gradient that is wrong by a factor."""

    factor: float = eqx.field(static=True)

    def run(self, problem, z0):
        raise AssertionError("the losses here are not trajectories")

    def run_two_point(self, problem, guess, newton):
        raise AssertionError("the losses here are not trajectories")

    def distort(self, x):
        return self.factor * x + jax.lax.stop_gradient((1 - self.factor) * x)


def system():
    return Pendulums(jnp.asarray([1.0, 2.0, 0.5]), jnp.asarray(1.3), jnp.ones(2))


def loss(system, gradient):
    start = eg.InitialValue(jnp.asarray([0.3, 1.0, -2.0]), jnp.asarray([0.5, 0.1, 0.4]))
    sol = solve(system, start, dt=0.1, steps=12, gradient=gradient, save=eg.FinalNode())
    return jnp.sum(sol.q**2) + jnp.sum(sol.p)


@pytest.fixture(scope="module")
def report():
    return eg.check_gradients(loss, system())


def select(report, candidate):
    return {row["parameter"]: row for row in report.rows if row["candidate"] == candidate}


@pytest.mark.fast
def test_the_echo_passes(report):
    rows = select(report, "echo")
    assert set(rows) == {"mass", "gravity", "unused"}
    for name in ("mass", "gravity"):
        assert rows[name]["relative_error"] < (1e-12 if jax.config.jax_enable_x64 else 1e-4)
        assert rows[name]["cosine"] == pytest.approx(1, abs=1e-6)
        assert rows[name]["norm_ratio"] == pytest.approx(1, abs=1e-4)
        assert rows[name]["taylor_slope"] == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("curvature", [1.0, -1.0])
def test_a_wrong_gradient_is_detected(curvature):
    def loss(x, gradient):
        x = gradient.distort(x) if isinstance(gradient, Distorted) else x
        return jnp.sum(jnp.exp(curvature * x))

    x = jnp.asarray([0.5, 1.0, -2.0])
    report = eg.check_gradients(loss, x, {"off": Distorted(1.1), "opposite": Distorted(-1.0)})
    off, opposite = report.rows
    assert off["relative_error"] == pytest.approx(0.1, rel=1e-4)
    assert off["norm_ratio"] == pytest.approx(1.1, rel=1e-4)
    assert off["taylor_slope"] == pytest.approx(1, abs=0.25)
    assert opposite["cosine"] == pytest.approx(-1)
    assert opposite["taylor_slope"] == pytest.approx(1, abs=0.1)
    assert report.worst == pytest.approx(2, rel=1e-4)
    assert report.ok(2.1)
    assert not report.ok(0.1)


def test_two_zeros_agree(report):
    row = select(report, "echo")["unused"]
    assert (row["relative_error"], row["cosine"], row["norm_ratio"]) == (0, 1, 1)
    assert row["reference_norm"] == 0
    assert row["taylor_slope"] is None


@pytest.mark.fast
def test_the_table_has_all_rows_in_columns(report):
    lines = report.table().splitlines()
    assert len(lines) == 2 + len(report.rows)
    assert len({len(line) for line in lines}) == 1
    assert str(report) == report.table()


def plain(params, gradient):
    return jnp.sum(params["a"]) if isinstance(gradient, eg.Backprop) else jnp.sum(params["b"] * params["a"])


def test_a_zero_reference_gives_an_infinite_error():
    params = {"a": jnp.ones(2), "b": jnp.ones(2), "n": jnp.arange(3)}
    a, b = eg.check_gradients(plain, params).rows
    assert a["relative_error"] == 0
    assert (b["relative_error"], b["cosine"], b["norm_ratio"]) == (math.inf, 0, math.inf)
    reverse = eg.check_gradients(plain, params, {"b": eg.Backprop()}, reference=eg.Echo(), taylor=False)
    assert [row["relative_error"] for row in reverse.rows] == [0, 1]
    assert all(row["taylor_slope"] is None for row in reverse.rows)


def test_nan_propagates():
    def loss(params, gradient):
        return jnp.sum(params) * (1 if isinstance(gradient, eg.Backprop) else jnp.nan)

    report = eg.check_gradients(loss, jnp.ones(2))
    assert np.isnan(report.worst)
    assert not report.ok(math.inf)
    assert "nan" in report.table()
    assert json.loads(report.json())["rows"][0]["relative_error"] is None


@pytest.mark.parametrize("lost", [math.nan, math.inf])
def test_gradients_that_are_not_finite_never_agree(lost):
    """They do not agree with a zero gradient either, and do not change the errors of other parameters."""

    def loss(params, gradient):
        exact = isinstance(gradient, eg.Backprop)
        return jnp.sum(params["a"]) * (0 if exact else lost) + jnp.sum(params["b"]) * (1 if exact else 2)

    params = {"a": jnp.ones(2), "b": jnp.ones(2)}
    for candidate, reference in ((eg.Echo(), eg.Backprop()), (eg.Backprop(), eg.Echo())):
        report = eg.check_gradients(loss, params, {"it": candidate}, reference=reference, taylor=False)
        a, b = report.rows
        assert np.isnan([a["relative_error"], a["cosine"], a["norm_ratio"]]).all()
        assert b["relative_error"] in (0.5, 1)
        assert not report.ok(1e300)


def test_the_taylor_test_ignores_points_where_the_loss_raises():
    def loss(x, gradient):
        x = eqx.error_if(x, jnp.abs(x - 1) > 0.02, "outside")
        return jnp.sin(x) * jnp.exp(x)

    (row,) = eg.check_gradients(loss, jnp.asarray(1.0)).rows
    assert row["parameter"] == "params"
    assert row["taylor_slope"] is None or row["taylor_slope"] == pytest.approx(2, abs=0.1)
    if jax.config.jax_enable_x64:
        assert row["taylor_slope"] is not None


def test_complex_parameters():
    def loss(z, gradient):
        return jnp.sum(jnp.real(z**3))

    z = jnp.asarray([1.0 + 2.0j, 0.5 - 1.0j])
    (row,) = eg.check_gradients(loss, z).rows
    assert row["relative_error"] == 0
    assert row["cosine"] == pytest.approx(1)
    assert row["taylor_slope"] == pytest.approx(2, abs=0.1)


@pytest.mark.float64_only
@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ((loss, {"n": 1}), ValueError, "no floating-point arrays"),
        ((lambda x, gradient: x, jnp.ones(2)), ValueError, "one real number"),
        ((lambda x, gradient: jnp.asarray(1), jnp.ones(2)), ValueError, "one real number"),
        ((loss, jnp.ones(2), {}), ValueError, "no candidates"),
        ((loss, jnp.ones(2), {"echo": eg.Echo}), TypeError, "parentheses"),
    ],
)
def test_wrong_use(arguments, kind, message):
    with pytest.raises(kind, match=message):
        eg.check_gradients(*arguments)
