"""Damping in proportion to mass: the ordinary echo is exact, and is the gain-flipped machine with its weights."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import echograd as eg
from cases import chain, errors, machine, mixed, solve, worst

pytestmark = [pytest.mark.slow, pytest.mark.least_effort]

RATE = 0.6


def damped_loss(point, gradient, velocity=False):
    start = eg.InitialValue(point.q, v=point.p) if velocity else eg.InitialValue(point.q, point.p)
    sol = solve(point.system, start, point.inputs, dt=point.dt, t0=point.t0, gradient=gradient, cost=point.cost)
    return mixed((sol.q, sol.p, sol.t)) + sol.cost**2


def gradients(f, point, *choices):
    @eqx.filter_jit
    def all_of(point):
        return [eqx.filter_grad(f)(point, gradient) for gradient in choices]

    return all_of(point)


@pytest.mark.float64_only
@pytest.mark.parametrize("velocity", [False, True])
def test_exact_with_nonlinear_forces_inputs_and_the_rate(velocity):
    point = machine()
    point = point._replace(system=eg.MassDamped(point.system, jnp.asarray(RATE)), closed_over=None)
    point = point._replace(p=jax.tree.map(lambda x: 0.3 * x, point.p))
    expected, found = gradients(lambda x, g: damped_loss(x, g, velocity), point, eg.Backprop(), eg.Echo())
    assert float(jnp.abs(expected.system.rate)) > 1e-2
    assert worst(found, expected) < 1e-9


@pytest.mark.float64_only
def test_batches_and_no_jit():
    point = chain()._replace(t0=jnp.asarray(0.3))
    rates = jnp.asarray([0.1, 0.5, -0.4])
    points = jax.tree.map(lambda x: jnp.stack([x] * 3), point)._replace(
        system=jax.vmap(lambda r: eg.MassDamped(point.system, r))(rates)
    )
    batched = jax.vmap(lambda x: gradients(damped_loss, x, eg.Backprop(), eg.Echo()))(points)
    assert worst(batched[1], batched[0]) < 1e-9
    second = jax.tree.map(lambda x: x[1], points)
    plain = eqx.filter_grad(damped_loss)(second, eg.Echo())
    assert worst(plain, jax.tree.map(lambda x: x[1], batched[0])) < 1e-9


def test_the_motion_is_damped():
    """Against the closed form of a damped oscillator, at second order; and no force means exponential decay."""

    class Spring(eg.SeparableHamiltonian):
        k: jax.Array

        def kinetic(self, t, p):
            return 0.25 * jnp.sum(p**2)

        def potential(self, t, q, u):
            return 0.5 * jnp.sum(self.k * q**2)

    errors = []
    for n in (100, 200):
        h = 4.0 / n
        damped = eg.MassDamped(Spring(jnp.asarray(3.0)), RATE)
        sol = eg.solve(damped, eg.InitialValue(jnp.asarray([1.0]), v=jnp.asarray([0.5])), dt=h, steps=n)
        w = np.sqrt(3.0 / 2 - RATE**2 / 4)
        t = np.asarray(sol.t)
        exact = np.exp(-RATE * t / 2) * (np.cos(w * t) + (0.5 + RATE / 2) / w * np.sin(w * t))
        errors.append(np.max(np.abs(np.asarray(sol.q[:, 0]) - exact)))
    if jax.config.jax_enable_x64:
        assert np.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.1)
    assert errors[0] < 2e-3

    free = eg.MassDamped(Spring(jnp.asarray(0.0)), jnp.asarray(RATE))
    sol = eg.solve(free, eg.InitialValue(jnp.zeros(1), jnp.ones(1)), dt=0.1, steps=40, t0=0.0)
    mechanical = jax.vmap(free.mechanical)(sol.t, sol.p)
    np.testing.assert_allclose(mechanical[:, 0], np.exp(-RATE * np.asarray(sol.t)), rtol=1e-5)


# The lossy device, in its own variables: drift, half a decay, kick, half a decay, drift.


def device(system, inputs, h, rate, gain):
    """Return the step of the device, forward in time; with a gain of 1, of the device whose decay has become growth."""
    factor = jnp.exp((2 * gain - 1) * rate * h / 2)

    def step(k, z):
        q, p = z
        q = q + 0.5 * h * jax.grad(lambda p: system.kinetic(0.0, p))(p)
        force = -jax.grad(lambda q: system.potential(0.0, q, inputs[k]))(q)
        p, before = factor * (factor * p + h * force), p
        return (q + 0.5 * h * jax.grad(lambda p: system.kinetic(0.0, p))(p), p), (q, before, p)

    return step


def device_echo(system, point, rate, bars, gain, weighted):
    """Return an echo's estimate of the gradient with respect to the system, read from the device."""
    h, nodes = point.dt, jnp.arange(point.inputs.shape[0])
    there = device(system, point.inputs, h, rate, 0.0)
    z, _ = jax.lax.scan(lambda z, k: (there(k, z)[0], None), (point.q, point.p), nodes)
    back = device(system, point.inputs, h, rate, gain)

    def weight(node):
        return jnp.exp(weighted * rate * h * node)

    def nudged(beta):
        def step(carry, k):
            (q, p), total = carry
            node = k.astype(h.dtype)
            p = p + beta * bars[k + 1] / weight(node + 1)
            z, (half, before, after) = back(k, (q, p))

            def reading(system):
                kinetic = weight(node + 1) * system.kinetic(0.0, before) + weight(node) * system.kinetic(0.0, after)
                return -h * (0.5 * kinetic + weight(node + 0.5) * system.potential(0.0, half, point.inputs[k]))

            return (z, jax.tree.map(jnp.add, total, jax.grad(reading)(system))), None

        start = (z[0], -z[1]), jax.tree.map(jnp.zeros_like, system)
        return jax.lax.scan(step, start, nodes[::-1])[0][1]

    return jax.jvp(nudged, (jnp.zeros_like(h),), (jnp.ones_like(h),))[1]


class Stiffening(eg.SeparableHamiltonian):
    """A chain with a cubic force."""

    mass: jax.Array
    stiffness: jax.Array

    def kinetic(self, t, p):
        return jnp.sum(p**2 / (2 * self.mass))

    def potential(self, t, q, u):
        stretch = jnp.diff(q, prepend=0.0, append=0.0)
        return jnp.sum(self.stiffness * (stretch**2 / 2 + stretch**4 / 4)) - u * q[0]


@pytest.fixture(scope="module")
def contest():
    """The gradient of a squared error by every route, on one nonlinear damped chain, γT = 1.8."""
    point = chain(10)._replace(dt=jnp.asarray(0.3), t0=jnp.asarray(0.0))
    system = Stiffening(point.system.mass, jnp.asarray([1.0, 0.5, 0.7, 0.9]))
    start = eg.InitialValue(point.q, point.p)
    target = jnp.outer(jnp.linspace(-1, 1, 11), jnp.ones(3))

    def squared_error(system, gradient):
        damped = eg.MassDamped(system, RATE)
        sol = solve(damped, start, point.inputs, dt=point.dt, gradient=gradient)
        return 0.5 * jnp.sum((sol.q - target) ** 2), sol.q - target

    @eqx.filter_jit
    def routes(system):
        grad = eqx.filter_grad(squared_error, has_aux=True)
        expected, bars = grad(system, eg.Backprop())
        devices = jax.vmap(lambda gain, weighted: device_echo(system, point, RATE, bars, gain, weighted))
        return expected, grad(system, eg.Echo())[0], devices(*choices)

    # Of gain and weights either, both or none.
    kinds = [(gain, weighted) for gain in (True, False) for weighted in (True, False)]
    choices = jnp.asarray(kinds, point.dt.dtype).T
    expected, echo, found = routes(system)
    return expected, echo, {kind: jax.tree.map(lambda x, i=i: x[i], found) for i, kind in enumerate(kinds)}


@pytest.mark.float64_only
def test_gain_flip_with_weights_is_the_same_echo(contest):
    expected, echo, device_routes = contest
    assert worst(echo, expected) < 1e-9
    assert worst(device_routes[True, True], expected) < 1e-9


@pytest.mark.float64_only
@pytest.mark.parametrize(
    ("gain", "weighted", "least"), [(False, False, 0.1), (False, True, 0.1), (True, False, 0.1)], ids=str
)
def test_the_lossy_device_and_the_unweighted_one_fail(contest, gain, weighted, least):
    """The plain echo of the lossy device; the same with weights; gain without weights."""
    expected, _, device_routes = contest
    found = errors(device_routes[gain, weighted], expected)
    assert min(found.values()) > least


@pytest.mark.float64_only
def test_the_envelope_is_the_same_motion():
    """Exact on its own; its gradient tends to that of the damped system as the step falls, at second order."""
    point = chain(1)
    system = Stiffening(point.system.mass, jnp.asarray([1.0, 0.5, 0.7, 0.9]))

    @eqx.filter_jit
    def both(params, n):
        timing = {"dt": 2.0 / n, "t0": 0.3, "save": eg.FinalNode()}

        def direct(params, gradient):
            machine = eg.MassDamped(*params)
            start = eg.InitialValue(point.q, jnp.exp(0.3 * machine.rate) * point.p)
            sol = solve(machine, start, jnp.ones(n), gradient=gradient, **timing)
            return mixed((sol.q, machine.mechanical(sol.t, sol.p)))

        def enveloped(params, gradient):
            machine = eg.Envelope(*params)
            start = eg.InitialValue(*machine.enveloped(0.3, point.q, point.p))
            sol = solve(machine, start, jnp.ones(n), gradient=gradient, **timing)
            return mixed(machine.physical(sol.t, sol.q, sol.p))

        return [eqx.filter_grad(f)(params, g) for f in (direct, enveloped) for g in (eg.Backprop(), eg.Echo())]

    apart = []
    for n in (40, 80):
        direct, direct_echo, enveloped, enveloped_echo = both((system, jnp.asarray(RATE)), n)
        assert max(worst(direct_echo, direct), worst(enveloped_echo, enveloped)) < 1e-9
        apart.append(worst(enveloped, direct))
    assert np.log2(apart[0] / apart[1]) == pytest.approx(2, abs=0.15)


def test_an_envelope_of_what_has_none_is_refused():
    """A mass that grows with the speed: the shift of the momentum would be no shift, and the motion another one."""
    point = machine()
    with pytest.raises(eqx.EquinoxRuntimeError, match="constant masses"):
        eg.solve(eg.Envelope(point.system, RATE), eg.InitialValue(point.q, point.p), point.inputs, dt=point.dt)


@pytest.mark.float64_only
def test_a_machine_that_has_forgotten_is_held_to_its_path():
    """Driven for 76 decay times, the start is far below rounding: from mark to mark the echo is exact all the same."""
    point = chain()
    steps = 190

    def f(system, gradient):
        start = eg.InitialValue(point.q, point.p)
        damped = eg.MassDamped(system, 2.0)
        sol = solve(damped, start, jnp.ones(steps), dt=0.2, gradient=gradient, save=eg.FinalNode())
        return jnp.sum(sol.q**2)

    @eqx.filter_jit
    def gradients(system):
        return [eqx.filter_grad(f)(system, gradient) for gradient in (eg.Backprop(), eg.Echo())]

    expected, found = gradients(point.system)
    assert worst(found, expected) < 1e-9


def test_a_rate_that_the_dtype_cannot_hold_is_refused():
    point = chain()
    with pytest.raises(eqx.EquinoxRuntimeError, match="leaves the range of the dtype"):
        eg.solve(eg.MassDamped(point.system, 2.0), eg.InitialValue(point.q, point.p), jnp.ones(400), dt=1.0)


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda s: eg.MassDamped(s, jnp.ones(3)), ValueError, "one finite number"),
        (lambda s: eg.MassDamped(s, jnp.asarray(1)), ValueError, "one finite number"),
        (lambda s: eg.MassDamped(s, float("nan")), ValueError, "finite"),
        (lambda s: eg.MassDamped(eg.legendre(s), 0.1), TypeError, "not a SeparableHamiltonian"),
        (lambda s: eg.Envelope(eg.legendre(s), 0.1), TypeError, "not a SeparableHamiltonian"),
        (lambda s: eg.Envelope(s, jnp.ones(3)), ValueError, "one finite number"),
    ],
)
def test_misuse(make, error, match):
    with pytest.raises(error, match=match):
        make(chain().system)


def test_a_number_is_a_constant_and_an_array_is_trained():
    point = chain()
    assert len(jax.tree.leaves(eqx.filter(eg.MassDamped(point.system, 0.1), eqx.is_inexact_array))) == 2
    assert len(jax.tree.leaves(eqx.filter(eg.MassDamped(point.system, jnp.asarray(0.1)), eqx.is_inexact_array))) == 3
