"""Our sines and cosines against those of the C library in a higher precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from echograd._loops._trigonometry import is_served, sine_and_cosine


def worst(found, expected, x):
    """Return the largest error in units in the last place of the result, or of the argument where that is larger."""
    unit = np.maximum(np.spacing(np.abs(expected.astype(found.dtype))), np.spacing(np.abs(x)))
    return np.max(np.abs(found - expected) / unit)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3, 1e9])
def test_a_unit_in_the_last_place(scale):
    dtype = jnp.result_type(float)
    if scale > 1e6 and dtype == jnp.float32:
        pytest.skip("in float32 the spacing of arguments of 1e9 is 64 rad, many periods, so a sine means nothing")
    rng = np.random.default_rng(0)
    multiples = np.round(rng.uniform(-scale, scale, 5_000)) * (np.pi / 2)
    x = np.concatenate([rng.uniform(-scale, scale, 20_000), multiples, [0.0]]).astype(dtype)
    exact = x.astype(np.longdouble if dtype == jnp.float64 else np.float64)
    for found, expected in zip(jax.jit(sine_and_cosine)(x), (np.sin(exact), np.cos(exact)), strict=True):
        assert found.dtype == dtype
        assert worst(np.asarray(found), expected, x) < 1
        # Negative control: the neighbouring floats exceed the bound.
        assert worst(np.nextafter(np.asarray(found), np.inf, dtype=dtype), expected, x) > 1 or scale > 1e6


def test_small_results_have_their_digits_too():
    """Near a zero of the sine, its digits come from digits of π that the argument does not have."""
    double = jnp.result_type(float) == jnp.float64
    x = jnp.asarray(np.pi * np.arange(1, 10_000 if double else 3), jnp.result_type(float))
    exact = np.sin(np.asarray(x).astype(np.longdouble if double else np.float64))
    np.testing.assert_allclose(sine_and_cosine(x)[0], exact, rtol=4e-16 if double else 2e-7)


def test_where_there_is_no_sense_in_a_sine():
    x = jnp.asarray([1e30, -jnp.inf, jnp.nan])
    for found in sine_and_cosine(x):
        assert jnp.all(jnp.isnan(found))
    assert is_served(jnp.float32)
    assert not is_served(jnp.complex64)


def test_slopes_are_cosine_and_minus_sine(new_key):
    x = 30 * jax.random.normal(new_key(), (50,))
    (sine, cosine), slopes = jax.jvp(sine_and_cosine, (x,), (jnp.full_like(x, 2),))
    np.testing.assert_array_equal(slopes[0], 2 * cosine)
    np.testing.assert_array_equal(slopes[1], -2 * sine)
