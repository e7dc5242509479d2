"""Recurrent units: the gradient is backprop's, the map is the one written down, streaming equals the sequence."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import echograd as eg
from echograd.nn import _sequence

UNITS = {"linear": eg.nn.LinearHRU, "nonlinear": eg.nn.NonlinearHRU}


def relative_errors(a, b):
    return {
        jax.tree_util.keystr(path): float(jnp.linalg.norm(x - y) / jnp.linalg.norm(y))
        for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True)
    }


def make(kind, key, gradient=None, **options):
    unit = UNITS[kind](3, 4, units=5, gradient=gradient, key=key, **options)
    if kind == "nonlinear":
        noise = jax.random.normal(key, unit.bias.shape, unit.bias.dtype)
        unit = eqx.tree_at(lambda u: u.bias, unit, 0.3 * noise)
    return unit


@eqx.filter_jit
def gradients(unit, x, target):
    return eqx.filter_grad(lambda a: jnp.sum((a[0](a[1]) - target) ** 2))((unit, x))


@pytest.mark.float64_only
@pytest.mark.parametrize("complex", [True, False])
@pytest.mark.parametrize("kind", UNITS)
def test_the_echo_equals_backprop(kind, complex, new_key, monkeypatch):
    monkeypatch.setattr(_sequence, "_BLOCK", 8)  # 37 steps: blocks and a shorter one
    x = jax.random.normal(new_key(), (37, 3))
    target = jax.random.normal(new_key(), (37, 4))
    key = new_key()
    exact = gradients(make(kind, key, eg.Backprop(), complex=complex), x, target)
    for gradient in (eg.Echo(), eg.Backprop(checkpoints=6)):
        got = gradients(make(kind, key, gradient, complex=complex), x, target)
        errors = relative_errors(got, exact)
        assert max(errors.values()) < 1e-12, errors
    # Every leaf is trained: parameters, steps, angles, read-in, read-out, and the inputs.
    assert len(errors) == (7 if kind == "nonlinear" else 5)
    assert all(jnp.linalg.norm(g) > 0 for g in jax.tree.leaves(exact))


@pytest.mark.float64_only
def test_finite_nudges_have_their_order_and_are_exact_on_linear_units(new_key):
    x, target, key = jax.random.normal(new_key(), (30, 3)), jnp.ones((30, 4)), new_key()

    def error(kind, nudge):
        exact = gradients(make(kind, key, eg.Backprop()), x, target)
        return max(relative_errors(gradients(make(kind, key, eg.Echo(nudge)), x, target), exact).values())

    for nudge, slope in ((eg.Symmetric, 2), (eg.OneSided, 1)):
        coarse, fine = error("nonlinear", nudge(4e-4)), error("nonlinear", nudge(1e-4))
        assert np.log(coarse / fine) / np.log(4) == pytest.approx(slope, abs=0.15)
    assert error("linear", eg.Symmetric(10.0)) < 1e-10
    assert error("nonlinear", eg.Symmetric()) < 1e-6


@pytest.mark.float64_only
def test_batches_differ_in_nothing_from_single_examples(new_key):
    unit = make("nonlinear", new_key())
    x, target = jax.random.normal(new_key(), (6, 20, 3)), jax.random.normal(new_key(), (6, 20, 4))

    def loss(unit, axis):
        batched = jax.vmap(unit, in_axes=axis, out_axes=axis)
        y = batched(jnp.moveaxis(x, 0, axis))
        return jnp.sum((jnp.moveaxis(y, axis, 0) - target) ** 2)

    one_by_one = eqx.filter_grad(lambda unit: sum(jnp.sum((unit(x[i]) - target[i]) ** 2) for i in range(6)))(unit)
    for axis in (0, 1):
        errors = relative_errors(eqx.filter_grad(loss)(unit, axis), one_by_one)
        assert max(errors.values()) < 1e-12, errors


@pytest.mark.parametrize("kind", UNITS)
def test_streaming_equals_the_sequence(kind, new_key):
    unit = make(kind, new_key())
    x = jax.random.normal(new_key(), (25, 3))
    _, streamed = jax.lax.scan(lambda state, u: unit.step(state, u), unit.initial_state(), x)
    tolerance = 1e-12 if x.dtype == jnp.float64 else 1e-4
    np.testing.assert_allclose(streamed, unit(x), rtol=tolerance, atol=tolerance)


def test_the_linear_map_is_the_textbook_leapfrog(new_key):
    """An independent oracle: the recurrence written out by hand, per unit with its own step."""
    unit = make("linear", new_key(), complex=False)
    x = jax.random.normal(new_key(), (12, 3))
    h, stiffness = np.asarray(unit.time_step, float), np.asarray(unit.system.stiffness, float)
    q, p, expected = np.zeros(5), np.zeros(5), []
    for row in np.asarray(x, float):
        u = np.asarray(unit.read_in[0], float) @ row
        q = q + h / 2 * p
        p = p - h * (stiffness * q - u)
        q = q + h / 2 * p
        expected.append(np.asarray(unit.read_out[:, 0], float) @ q)
    np.testing.assert_allclose(unit(x), expected, rtol=1e-4 if x.dtype == jnp.float32 else 1e-12, atol=1e-5)


def test_units_are_stable_whatever_their_parameters(new_key):
    """The angle may run anywhere: |q| stays bounded over a long time after a kick."""
    for kind in UNITS:
        unit = make(kind, new_key())
        wild = 4 * jax.random.normal(new_key(), (5,))
        unit = eqx.tree_at(lambda u: (u.angle, u.log_step), unit, (wild, jnp.clip(wild[::-1], -3, 3)))
        x = jnp.zeros((20_000, 3)).at[0].set(1)
        y = unit(x)
        assert jnp.all(jnp.isfinite(y))
        assert jnp.max(jnp.abs(y[-2000:])) < 3 * jnp.max(jnp.abs(y[:18_000])) + 1e-3


def test_log_cosh_is_stable_and_smooth():
    x = jnp.asarray([-1e4, -2.0, 0.0, 1e-6, 3.0, 1e4])
    expected = [np.abs(v) - np.log(2) if abs(v) > 20 else np.log(np.cosh(v)) for v in np.asarray(x, float)]
    np.testing.assert_allclose(eg.nn.log_cosh(x), expected, rtol=1e-5, atol=1e-6)
    second = jax.vmap(jax.grad(jax.grad(eg.nn.log_cosh)))(x)
    np.testing.assert_allclose(second, 1 / np.cosh(np.minimum(np.abs(np.asarray(x, float)), 50)) ** 2, atol=1e-6)


def test_the_backward_pass_keeps_no_wide_array(new_key):
    """Compiled memory: far below one (steps, channels, units) array, which backprop stores several of."""
    key, steps, units = new_key(), 4096, 64

    def temporary(gradient):
        unit = eg.nn.LinearHRU(2, 2, units=units, gradient=gradient, key=key)
        arrays, static = eqx.partition(unit, eqx.is_inexact_array)
        loss = jax.grad(lambda arrays, x: jnp.sum(eqx.combine(arrays, static)(x) ** 2))
        x = jnp.ones((steps, 2))
        return jax.jit(loss).lower(arrays, x).compile().memory_analysis().temp_size_in_bytes

    wide = steps * 2 * units * jnp.ones(()).dtype.itemsize
    assert temporary(eg.Echo()) < wide / 4
    assert temporary(eg.Backprop()) > wide


def test_wrong_use_is_refused(new_key):
    with pytest.raises(ValueError, match="units"):
        eg.nn.LinearHRU(3, 4, units=0, key=new_key())
    with pytest.raises(ValueError, match="between 0 and pi"):
        eg.nn.LinearHRU(3, 4, angles=(0.1, 4.0), key=new_key())
    with pytest.raises(ValueError, match="steps, 3"):
        make("linear", new_key())(jnp.ones((10, 2)))
    with pytest.raises(TypeError, match="Echo"):
        make("linear", new_key(), gradient="echo")(jnp.ones((10, 3)))
