"""Recurrent units: the gradient is backprop's, the map is the one written down, streaming equals the sequence."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import echograd as eg
from echograd.nn import _sequence
from echograd.nn._oscillators import log_cosh

pytestmark = pytest.mark.least_effort

UNITS = {"linear": eg.nn.LinearHRU, "nonlinear": eg.nn.NonlinearHRU, "damped": eg.nn.DampedHRU}
RULES = {"linear": eg.Echo(), "nonlinear": eg.Echo(), "damped": eg.Reciprocal()}
LEAVES = {"linear": 5, "nonlinear": 7, "damped": 6}


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
    # 150 steps: three blocks of two chunks, the last one padded; 4 x 64 rows are put one example after the other.
    monkeypatch.setattr(_sequence, "limits", lambda: (4096, 64))
    x = 0.5 * jax.random.normal(new_key(), (4, 150, 3))
    target = jax.random.normal(new_key(), (4, 150, 4))
    key = new_key()
    exact = gradients(make(kind, key, eg.Backprop(), complex=complex), x, target)
    for gradient in (RULES[kind], eg.Backprop(checkpoints=2)):
        got = gradients(make(kind, key, gradient, complex=complex), x, target)
        errors = relative_errors(got, exact)
        assert max(errors.values()) < 1e-10, errors
    # Every leaf is trained: parameters, steps, angles, read-in, read-out, and the inputs.
    assert len(errors) == LEAVES[kind]
    assert all(jnp.linalg.norm(g) > 0 for g in jax.tree.leaves(exact))


@pytest.mark.float64_only
@pytest.mark.parametrize("kind", ["linear", "damped"])
@pytest.mark.parametrize("angle", [1e-4, 3.1415])
def test_the_gradient_is_exact_at_the_ends_of_the_range_of_angles(angle, kind, new_key):
    x, target, key = jax.random.normal(new_key(), (40, 3)), jax.random.normal(new_key(), (40, 4)), new_key()
    exact, echo = (
        gradients(make(kind, key, g, angles=(angle, angle)), x, target) for g in (eg.Backprop(), RULES[kind])
    )
    errors = relative_errors(echo, exact)
    assert max(errors.values()) < 1e-9, errors


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
    assert error("linear", eg.OneSided(10.0)) < 1e-10
    # A noisy instrument is noisy on linear units too.
    noisy = error("linear", eg.Noisy(eg.Symmetric(1.0), 1e-6, new_key()))
    assert 1e-8 < noisy < 1e-3
    assert error("nonlinear", eg.Symmetric()) < 1e-6


@pytest.mark.float64_only
@pytest.mark.parametrize("kind", UNITS)
def test_batches_differ_in_nothing_from_single_examples(kind, new_key):
    unit = make(kind, new_key())
    x, target = jax.random.normal(new_key(), (3, 20, 3)), jax.random.normal(new_key(), (3, 20, 4))

    def squares(y):
        return jnp.sum((y - target) ** 2)

    losses = (
        lambda unit: squares(unit(x)),
        lambda unit: squares(jax.vmap(unit)(x)),
        lambda unit: squares(jnp.moveaxis(jax.vmap(unit, in_axes=1, out_axes=1)(jnp.moveaxis(x, 0, 1)), 1, 0)),
    )

    @eqx.filter_jit
    def all_ways(unit):
        each = jax.vmap(lambda x, y: eqx.filter_grad(lambda unit: jnp.sum((unit(x) - y) ** 2))(unit))(x, target)
        return [*(eqx.filter_grad(loss)(unit) for loss in losses), jax.tree.map(lambda g: jnp.sum(g, 0), each)]

    @eqx.filter_jit
    def one(unit, x, y):
        return eqx.filter_grad(lambda unit: jnp.sum((unit(x) - y) ** 2))(unit)

    one_by_one = jax.tree.map(lambda *g: sum(g), *(one(unit, x[i], target[i]) for i in range(3)))
    for got in all_ways(unit):
        errors = relative_errors(got, one_by_one)
        assert max(errors.values()) < 1e-11, errors


@pytest.mark.fast
@pytest.mark.parametrize("kind", UNITS)
def test_streaming_equals_the_sequence(kind, new_key):
    unit = make(kind, new_key())
    x = jax.random.normal(new_key(), (25, 3))

    @eqx.filter_jit
    def both(unit):
        return jax.lax.scan(unit.step, unit.initial_state(), x)[1], unit(x)

    streamed, sequence = both(unit)
    tolerance = 1e-12 if x.dtype == jnp.float64 else 1e-4
    np.testing.assert_allclose(streamed, sequence, rtol=tolerance, atol=tolerance)

    # Still a PyTree whose arrays are traced: another unit of the same shapes needs no second program.
    traced = []

    @eqx.filter_jit
    def last(step):
        traced.append(step)
        return jnp.sum(jax.lax.scan(step, unit.initial_state(), x)[1][-1] ** 2)

    other = make(kind, new_key())
    values = [float(last(u.step)) for u in (unit, other)]
    expected = [float(jnp.sum(both(u)[1][-1] ** 2)) for u in (unit, other)]
    np.testing.assert_allclose(values, expected, rtol=10 * tolerance)
    assert len(traced) == 1
    slope = eqx.filter_jit(eqx.filter_jacrev(lambda unit: [jnp.sum(y[-1] ** 2) for y in both(unit)]))
    errors = relative_errors(*slope(unit))
    assert max(errors.values()) < 1e3 * tolerance, errors


@pytest.mark.fast
def test_the_linear_map_is_the_textbook_leapfrog(new_key):
    """An independent oracle: the recurrence written out by hand, per unit with its own step."""
    unit = make("linear", new_key(), complex=False)
    x = jax.random.normal(new_key(), (12, 3))
    h, stiffness = np.asarray(unit.time_step, float), np.asarray(unit.stiffness, float)
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
    np.testing.assert_allclose(log_cosh(x), expected, rtol=1e-5, atol=1e-6)
    second = jax.vmap(jax.grad(jax.grad(log_cosh)))(x)
    np.testing.assert_allclose(second, 1 / np.cosh(np.minimum(np.abs(np.asarray(x, float)), 50)) ** 2, atol=1e-6)


def _temporary(kind, gradient, steps, key):
    """Return the compiled temporary memory of a gradient."""
    unit = make(kind, key, gradient)
    arrays, static = eqx.partition(unit, eqx.is_inexact_array)
    pull = jax.jit(lambda arrays, x, bar: jax.vjp(lambda arrays, x: eqx.combine(arrays, static)(x), arrays, x)[1](bar))
    compiled = pull.lower(arrays, jnp.ones((*steps, 3)), jnp.ones((*steps, 4))).compile()
    return compiled.memory_analysis().temp_size_in_bytes


ONE = pytest.param(
    "nonlinear",
    (),
    marks=pytest.mark.skipif(
        jax.__version_info__ < (0, 11), reason="XLA before jax 0.11 copies the result of a single sequence once"
    ),
)


@pytest.mark.float64_only
@pytest.mark.parametrize(("kind", "batch"), [("linear", (2,)), ("damped", (2,)), ONE], ids=["linear", "damped", "one"])
def test_the_memory_of_a_gradient_does_not_grow_with_the_sequence(kind, batch, new_key):
    """Except for inputs, outputs and their cotangents, which are arguments and results here."""
    key = new_key()
    short, long = (*batch, 16_000), (*batch, 160_000)
    # Damped units keep a state for every block of some thousand numbers, too.
    assert _temporary(kind, RULES[kind], long, key) < 1.2 * _temporary(kind, RULES[kind], short, key)
    assert _temporary(kind, eg.Backprop(), long, key) > 5 * _temporary(kind, eg.Backprop(), short, key)


def test_a_linear_unit_alone_keeps_its_inputs_outputs_and_cotangents(new_key):
    """Inside a loss, memory grows with the steps only by these arrays, for any number of units."""
    arrays, static = eqx.partition(eg.nn.LinearHRU(3, 4, units=32, key=new_key()), eqx.is_inexact_array)

    def grown(steps):
        slope = jax.jit(jax.grad(lambda arrays, x: jnp.sum(eqx.combine(arrays, static)(x) ** 2), (0, 1)))
        found = slope.lower(arrays, jnp.ones((2, steps, 3))).compile().memory_analysis()
        return found.temp_size_in_bytes + found.output_size_in_bytes

    numbers = 2 * 40_000 * (4 + 4 + 3)  # outputs, their cotangents, and those of the inputs, which are arguments
    assert grown(60_000) - grown(20_000) < 1.01 * numbers * jnp.ones(()).dtype.itemsize


def test_nothing_is_traced_again_for_the_same_shapes(new_key):
    unit, traces = make("linear", new_key()), 0

    @eqx.filter_jit
    def gradient(unit, x):
        nonlocal traces
        traces += 1
        return eqx.filter_grad(lambda unit: jnp.sum(unit(x) ** 2))(unit)

    for scale in (1.0, 2.0):
        gradient(jax.tree.map(lambda a, s=scale: s * a, unit), scale * jnp.ones((2, 40, 3)))
    assert traces == 1


@pytest.mark.parametrize("kind", UNITS)
def test_what_is_not_a_number_does_not_pass(kind, new_key):
    unit = make(kind, new_key())
    x = jnp.ones((40, 3)).at[7, 1].set(jnp.nan)
    with pytest.raises(ValueError, match="the input holds a NaN"):
        unit(x)
    run = jax.jit(lambda x: unit(x))  # whose numbers are not known
    assert jnp.isnan(run(x)[-1]).all()
    batch = run(jnp.stack([jnp.ones_like(x), x]))
    np.testing.assert_array_equal(batch[0], run(jnp.ones((2, 40, 3)))[0])  # the other sequence does not change
    assert jnp.isnan(batch[1, 7:]).all()
    gradient = eqx.filter_jit(eqx.filter_grad(lambda unit, x: jnp.sum(unit(x)[:5])))
    message = "gradient of a unit is not finite" if kind == "damped" else "did not come back to their initial state"
    with pytest.raises(Exception, match=message):
        jax.block_until_ready(gradient(unit, x))


def test_wrong_use_is_refused(new_key):
    with pytest.raises(ValueError, match="units"):
        eg.nn.LinearHRU(3, 4, units=0, key=new_key())
    with pytest.raises(ValueError, match="between 0 and pi"):
        eg.nn.LinearHRU(3, 4, angles=(0.1, 4.0), key=new_key())
    with pytest.raises(ValueError, match="steps, 3"):
        make("linear", new_key())(jnp.ones((10, 2)))
    with pytest.raises(ValueError, match="so it is empty"):
        make("linear", new_key())(jnp.ones((0, 3)))
    with pytest.raises(TypeError, match="the input is int32"):
        make("linear", new_key())(jnp.ones((10, 3), jnp.int32))
    unit = make("linear", new_key())
    with pytest.raises(ValueError, match=r"\(2,\), and \(3,\) is needed"):
        unit.step(unit.initial_state(), jnp.ones(2))
    with pytest.raises(TypeError, match="Echo"):
        make("linear", new_key(), gradient="echo")(jnp.ones((10, 3)))


@pytest.mark.parametrize("kind", UNITS)
def test_what_moves_oscillators_is_multiplied_with_all_digits(kind, new_key):
    """Otherwise a GPU rounds factors to ten bits, and echoes fail. The read-out has the user's precision."""
    unit = make(kind, new_key(), RULES[kind])

    def loss(unit, x):
        return jnp.sum(unit(x) ** 2)

    program = str(jax.make_jaxpr(jax.grad(lambda x: loss(unit, x)))(jnp.ones((2, 64, 3))))
    full = program.count("precision=(Precision.HIGHEST")
    # The read-out: forward, in the echo, and the cotangents of both factors.
    assert program.count("dot_general[") - full == 4
    assert full >= 4


def test_blocks_suit_the_device(monkeypatch):
    """Blocks are long on a GPU, where every operation is launched, and multiples of 32 steps everywhere."""
    on_cpu = _sequence.block_length(17_984, 4)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    on_gpu = _sequence.block_length(17_984, 4)
    assert on_cpu <= 1536 < on_gpu <= 4096
    assert on_cpu % 32 == on_gpu % 32 == 0
    # With 4 x 1280 steps, the stride of the features would be a multiple of a large power of two.
    monkeypatch.undo()
    assert _sequence.block_length(49_920, 4) == 1248
