"""Units from a given state: exact gradients of and with respect to states, chunks equal the whole, refusals."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import echograd as eg
from echograd.nn import _sequence

pytestmark = pytest.mark.least_effort

UNITS = {"linear": eg.nn.LinearHRU, "nonlinear": eg.nn.NonlinearHRU, "damped": eg.nn.DampedHRU}


def make(kind, gradient=None, **options):
    unit = UNITS[kind](3, 4, units=5, gradient=gradient, key=jax.random.key(1), **options)
    if kind == "nonlinear":
        unit = eqx.tree_at(lambda u: u.bias, unit, 0.3 * jnp.cos(jnp.arange(10.0)).reshape(2, 5))
    return unit


def example(new_key, steps, batch=2):
    """Return inputs and a state that no unit reaches by itself."""
    x = 0.5 * jax.random.normal(new_key(), (batch, steps, 3))
    return x, (jax.random.normal(new_key(), (batch, 2, 5)), jax.random.normal(new_key(), (batch, 2, 5)))


def loss(y, state):
    """Every output and every number of the state has a cotangent of its own."""
    weights = jnp.sin(jnp.arange(1.0, 1 + y.size)).reshape(y.shape)
    return jnp.sum(weights * y**2) + jnp.sum(jnp.cos(state[0])) + jnp.sum(state[0] * state[1] ** 2)


def whole(unit, x, state):
    return unit(x, state)


def stepped(unit, x, state):
    state, y = jax.vmap(lambda state, x: jax.lax.scan(unit.step, state, x))(state, x)
    return y, state


def chunked(unit, x, state, cut=False):
    """Run six chunks by a scan, example by example; `cut` stops the gradient between them."""

    def body(state, x):
        y, state = jax.vmap(unit)(x, jax.lax.stop_gradient(state) if cut else state)
        return state, y

    state, y = jax.lax.scan(body, state, jnp.moveaxis(x.reshape(len(x), 6, -1, 3), 1, 0))
    return jnp.moveaxis(y, 0, 1).reshape(*x.shape[:2], 4), state


@eqx.filter_jit
def gradients(arguments, *runs, cost=loss):
    return [eqx.filter_grad(lambda arguments, run=run: cost(*run(*arguments)))(arguments) for run in runs]


def worst(found, exact):
    """Return the largest relative error of a leaf. The exact gradient has no leaf of zeros."""
    found, exact = jax.tree.leaves(found), jax.tree.leaves(exact)
    assert all(jnp.linalg.norm(b) > 0 for b in exact)
    return max(float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b)) for a, b in zip(found, exact, strict=True))


@pytest.mark.float64_only
@pytest.mark.parametrize("kind", UNITS)
def test_gradients_of_parameters_inputs_and_states_are_exact(kind, new_key, monkeypatch):
    # 78 steps: two blocks of 32, and a rest of 14 that must not be padded. The chunks have 13 steps.
    monkeypatch.setattr(_sequence, "limits", lambda: (4096, 32))
    x, state = example(new_key, 78)
    exact, at_once, in_chunks = gradients((make(kind), x, state), stepped, whole, chunked)
    backprop = gradients((make(kind, eg.Backprop(checkpoints=2)), x, state), whole)
    for found in (at_once, in_chunks, backprop):
        assert worst(found, exact) < 1e-11
    assert len(jax.tree.leaves(exact)) == {"linear": 7, "nonlinear": 9, "damped": 8}[kind]


@pytest.mark.float64_only
@pytest.mark.parametrize("kind", ["linear", "damped"])
def test_constants_at_the_ends_of_their_ranges(kind, new_key):
    x, state = example(new_key, 40)
    for angle, decay in ((1e-4, 5.0), (3.0, 1e-8)):
        options = {"angles": (angle, angle)} | ({"decays": (decay, decay)} if kind == "damped" else {})
        exact, found = gradients((make(kind, **options), x, state), stepped, whole)
        assert worst(found, exact) < 1e-9


@pytest.mark.float64_only
def test_only_the_final_state_has_a_cotangent(new_key):
    """And without `jit`, one sequence, in the inputs and the state."""
    x, state = jax.tree.map(lambda x: x[0], example(new_key, 12, batch=1))
    unit = make("damped")
    slopes = [
        jax.grad(lambda a, run=run: jnp.sum(jnp.sin(run(*a)[0])) + jnp.sum(run(*a)[1] ** 2))((x, state))
        for run in (lambda x, state: unit(x, state)[1], lambda x, state: jax.lax.scan(unit.step, state, x)[0])
    ]
    assert worst(*slopes) < 1e-11


@pytest.mark.float64_only
def test_truncated_backpropagation_drops_the_chunks_before(new_key):
    x, state = example(new_key, 12)

    def truncated(unit, x, state):
        return chunked(unit, x, state, cut=True)[0][:, -2:]

    def by_steps(unit, x, state):
        state = stepped(unit, x[:, :-2], state)[1]
        return stepped(unit, x[:, -2:], jax.lax.stop_gradient(state))[0]

    def cost(y):
        return jnp.sum(y**2)

    slopes = [
        eqx.filter_jit(eqx.filter_grad(lambda unit, run=run: cost(run(unit, x, state))))(make("linear"))
        for run in (truncated, by_steps)
    ]
    assert worst(*slopes) < 1e-11


@pytest.mark.float64_only
def test_a_finite_nudge_kicks_with_its_own_strength(new_key):
    """In a kernel, too."""
    arguments = make("nonlinear", eg.Echo(eg.Symmetric()), kernel=True), *example(new_key, 10)
    assert worst(*gradients(arguments, whole, stepped)) < 1e-6


@pytest.mark.fast
@pytest.mark.parametrize("kind", UNITS)
def test_chunks_and_steps_can_be_mixed(kind, new_key):
    """From rest, a chunk, steps, and a chunk of another length give what the whole sequence gives."""
    unit, x = make(kind), 0.5 * jax.random.normal(new_key(), (3, 70, 3))

    @eqx.filter_jit
    def both(unit, x):
        first, state = unit(x[:, :33], unit.initial_state(3))
        second, state = stepped(unit, x[:, 33:50], state)
        third, state = unit(x[:, 50:], state)
        y, final = unit(x, unit.initial_state(3))
        return (jnp.concatenate([first, second, third], 1), state), (y, final), unit(x)

    mixed, (y, final), from_rest = both(unit, x)
    tolerance = 1e-12 if x.dtype == jnp.float64 else 2e-4
    for a, b in zip(jax.tree.leaves(mixed), jax.tree.leaves((y, final)), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(y, from_rest, rtol=tolerance, atol=tolerance)


def test_memory_does_not_depend_on_the_number_of_units(new_key):
    arrays, static = eqx.partition(eg.nn.LinearHRU(3, 4, units=32, key=new_key()), eqx.is_inexact_array)

    def temporary(steps):
        unit = eqx.combine(arrays, static)
        state, x, bar = unit.initial_state(2), jnp.ones((2, steps, 3)), jnp.ones((2, steps, 4))

        def pull(arrays, x, state, bar):
            return jax.vjp(lambda *a: eqx.combine(a[0], static)(*a[1:]), arrays, x, state)[1]((bar, state))

        return jax.jit(pull).lower(arrays, x, state, bar).compile().memory_analysis().temp_size_in_bytes

    # The pieces of the outputs and of the cotangents are joined. Positions alone would take 16 times the outputs.
    outputs = 2 * 80_000 * 4 * jnp.ones(()).dtype.itemsize
    assert temporary(100_000) - temporary(20_000) < 2 * outputs


@pytest.mark.float64_only
def test_an_echo_returns_to_the_given_state(new_key):
    x, state = example(new_key, 40)
    with pytest.raises(eqx.EquinoxRuntimeError, match="did not come back to their initial state"):
        jax.block_until_ready(gradients((make("linear", eg.Echo(retrace_tolerance=1e-30)), x, state), whole))


@pytest.mark.precision_free
def test_wrong_states_are_refused():
    unit, x = make("linear"), jnp.ones((2, 10, 3))
    good = unit.initial_state(2)
    for state, error, message in (
        (good[0], TypeError, r"LinearHRU: state=f\d\d\[2,2,5\].* is not a pair \(q, p\) of positions and momenta"),
        (
            unit.initial_state(),
            ValueError,
            r"state\[0\] has shape \(2, 5\), and \(2, 2, 5\), \(batch, chan",
        ),
        ((good[0], good[1][..., :3]), ValueError, r"state\[1\] has shape \(2, 2, 3\).* unit.initial_state\(2\)"),
        ((good[0], good[1].astype(int)), TypeError, r"state\[1\] is int\d\d, and the parameters are float"),
        ((good[0], {"p": good[1]}), TypeError, r"state\[1\] must be one array of numbers"),
        ((good[0], jnp.nan * good[1]), ValueError, r"state\[1\] holds a NaN"),
    ):
        with pytest.raises(error, match=message):
            unit(x, state)
    with pytest.raises(ValueError, match=r"shape \(2, 2, 5\), and \(2, 5\), \(channels, units\), is needed"):
        unit.step(good, x[0, 0])
    with pytest.raises(ValueError, match="batch=0"):
        unit.initial_state(0)
