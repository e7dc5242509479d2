"""Damped units: the map written down, its undamped limit, exactness for any constants, float32, refusals."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import echograd as eg


def make(key, gradient=None, **options):
    return eg.nn.DampedHRU(3, 4, units=5, gradient=gradient, key=key, **options)


@eqx.filter_jit
def gradients(unit, x, target):
    return eqx.filter_grad(lambda a: jnp.mean((a[0](a[1]) - target) ** 2))((unit, x))


def errors(found, exact):
    return {
        jax.tree_util.keystr(path): float(jnp.linalg.norm(a.astype(b.dtype) - b) / jnp.linalg.norm(b))
        for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(exact), strict=True)
    }


@pytest.mark.float64_only
def test_the_map_is_half_damping_leapfrog_half_damping(new_key):
    """An independent oracle: the recurrence by hand, in physical units, from the public constants."""
    unit = make(new_key(), complex=False)
    x = np.asarray(jax.random.normal(new_key(), (12, 3)))
    h, stiffness, damping = map(np.asarray, (unit.time_step, unit.stiffness, unit.damping))
    assert np.all((h**2 * stiffness > 0) & (h**2 * stiffness < 4))
    q, p, expected = np.zeros(5), np.zeros(5), []
    for row in x:
        p = np.exp(-damping * h / 2) * p
        q = q + h / 2 * p
        p = p - h * (stiffness * q - np.asarray(unit.read_in[0]) @ row)
        q = q + h / 2 * p
        p = np.exp(-damping * h / 2) * p
        expected.append(np.asarray(unit.read_out[:, 0]) @ q)
    np.testing.assert_allclose(unit(jnp.asarray(x)), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.float64_only
def test_its_eigenvalues_are_the_constants(new_key):
    """A step without a drive turns by the angle and shrinks by the decay."""
    system = make(new_key()).system
    zero, one = jnp.zeros((1, 5)), jnp.ones((1, 5))
    columns = [system.step(z, zero) for z in ((one, zero), (zero, one))]
    for i in range(5):
        matrix = np.asarray([[column[row][0, i] for column in columns] for row in (0, 1)])
        expected = np.exp(complex(-system.decay[i], system.angle[i]))
        np.testing.assert_allclose(sorted(np.linalg.eigvals(matrix), key=np.imag)[1], expected, rtol=1e-10)


@pytest.mark.float64_only
def test_without_damping_it_is_the_linear_unit(new_key):
    linear, damped = eg.nn.LinearHRU(3, 4, units=5, key=new_key()), make(new_key())
    names = ("angle", "log_step", "read_in", "read_out")
    damped = eqx.tree_at(
        lambda u: [*(getattr(u, name) for name in names), u.log_decay],
        damped,
        [*(getattr(linear, name) for name in names), jnp.full(5, -jnp.inf)],
    )
    x, target = jax.random.normal(new_key(), (2, 100, 3)), jnp.ones((2, 100, 4))
    np.testing.assert_allclose(damped(x), linear(x), rtol=1e-12, atol=1e-12)
    (found, x_found), (exact, x_exact) = gradients(damped, x, target), gradients(linear, x, target)
    for a, b in ((x_found, x_exact), *((getattr(found, name), getattr(exact, name)) for name in names)):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-13)


@pytest.mark.float64_only
@pytest.mark.parametrize("decay", [1e-8, 5.0])
def test_the_gradient_is_exact_for_any_decay(decay, new_key):
    x, target, key = jax.random.normal(new_key(), (100, 3)), jnp.ones((100, 4)), new_key()
    found, exact = (gradients(make(key, g, decays=(decay, decay)), x, target) for g in (eg.Reciprocal(), eg.Backprop()))
    assert max(errors(found, exact).values()) < 1e-10, errors(found, exact)


@pytest.mark.float64_only
def test_strong_damping_over_a_long_run_does_not_overflow(new_key):
    """An echo would multiply rounding errors by exp(20,000)."""
    x, target, key = jax.random.normal(new_key(), (4000, 3)), jnp.ones((4000, 4)), new_key()
    found, exact = (gradients(make(key, g, decays=(5, 5)), x, target) for g in (eg.Reciprocal(), eg.Backprop()))
    assert max(errors(found, exact).values()) < 1e-9, errors(found, exact)


@pytest.mark.float64_only
def test_float32_errors_are_no_larger_than_those_of_backprop(new_key):
    """The truth is backprop in float64 with the same float32 numbers."""
    x, target = (jax.random.normal(new_key(), (3000, n)).astype(jnp.float32) for n in (3, 4))
    key = new_key()

    def worst(gradient, scale=lambda x: x):
        unit = jax.tree.map(lambda x: x.astype(jnp.float32), make(key, gradient, decays=(1 / 3000, 0.1)))
        return gradients(*jax.tree.map(scale, (unit, x, target)))

    truth = worst(eg.Backprop(), lambda x: x.astype(jnp.float64))
    found, backprop = (max(errors(worst(g), truth).values()) for g in (eg.Reciprocal(), eg.Backprop()))
    assert found < 1e-3
    assert found < 1.2 * backprop, (found, backprop)


@pytest.mark.float64_only
def test_a_hessian(new_key):
    unit, u = make(jax.random.key(1)), jax.random.normal(new_key(), (6, 3))

    def turned(gradient):
        params, static = eqx.partition(eqx.tree_at(lambda u: u.gradient, unit, gradient), eqx.is_inexact_array)
        slope = jax.grad(lambda x: jnp.sum(jnp.sin(eqx.combine(x[0], static)(x[1]))))
        return jax.jit(lambda x: jax.jvp(slope, (x,), (x,))[1])((params, u))

    for a, b in zip(*(jax.tree.leaves(turned(g)) for g in (eg.Reciprocal(), eg.Backprop())), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_initial_constants_lie_within_their_bounds(new_key):
    unit = eg.nn.DampedHRU(3, 4, units=200, angles=(0.1, 0.5), decays=(1e-3, 1e-2), key=new_key())
    for values, low, high in ((unit.system.angle, 0.1, 0.5), (unit.system.decay, 1e-3, 1e-2)):
        assert low * (1 - 1e-5) < jnp.min(values) < 1.2 * low
        assert 0.8 * high < jnp.max(values) < high * (1 + 1e-5)
    np.testing.assert_allclose(unit.stiffness, 1, rtol=1e-4)


@pytest.mark.fast
@pytest.mark.precision_free
@pytest.mark.parametrize("build", [make, lambda key, g: eg.nn.HSSM(3, 2, unit="damped", gradient=g, key=key)])
def test_gradients_that_do_not_apply_are_refused(build, new_key):
    for gradient, message in (
        (eg.Echo(), r"lose energy, so the machine run back .* Pass Reciprocal\(\) or Backprop\(\)"),
        (eg.SameBoundary(), "cannot be used with damped oscillators"),
        (eg.Reciprocal(eg.Symmetric(1e-3)), r"Reciprocal\(Symmetric\(...\)\) is not available"),
    ):
        with pytest.raises(TypeError, match=message):
            build(new_key(), gradient)
    assert isinstance(make(new_key()).gradient, eg.Reciprocal)
    # A gradient that is exchanged later is refused when the unit runs.
    late = eqx.tree_at(lambda unit: unit.gradient, make(new_key()), eg.Echo())
    with pytest.raises(TypeError, match=r"Echo\(...\) cannot be used with damped oscillators"):
        late(jnp.ones((5, 3)))
    with pytest.raises(TypeError, match=r'for damped oscillators: DampedHRU, or HSSM\(unit="damped"\)'):
        eg.nn.LinearHRU(3, 4, gradient=eg.Reciprocal(), key=new_key())
    with pytest.raises(ValueError, match="decay rates per step are positive"):
        make(new_key(), decays=(0, 0.1))
    with pytest.raises(ValueError, match="only damped units have decay rates"):
        eg.nn.HSSM(3, 2, decays=(0.1, 0.2), key=new_key())
