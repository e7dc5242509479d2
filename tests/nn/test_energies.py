"""Hopfield and resistive networks have the documented energies."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import echograd as eg

pytestmark = pytest.mark.least_effort


@pytest.mark.fast
def test_units_of_a_hopfield_net_settle_to_their_inputs(new_key):
    net = eg.nn.HopfieldNet([3, 5, 4, 2], key=new_key())
    net = eqx.tree_at(lambda n: n.weights, net, tuple(0.4 * w for w in net.weights))
    net = eqx.tree_at(lambda n: n.biases, net, (jnp.linspace(-1.0, 1.5, 5), jnp.full(4, 0.3), jnp.full(2, 0.2)))
    u = jnp.asarray([0.5, -0.2, 0.9])
    a, b, c = map(np.asarray, net.rest(u).state)
    w0, w1, w2 = map(np.asarray, net.weights)
    close = {"atol": 1e-5}
    np.testing.assert_allclose(a, np.clip(np.asarray(u) @ w0 + b @ w1.T + np.asarray(net.biases[0]), 0, 1), **close)
    np.testing.assert_allclose(b, np.clip(a @ w1 + c @ w2.T + 0.3, 0, 1), **close)
    np.testing.assert_allclose(c, np.clip(b @ w2 + 0.2, 0, 1), **close)
    assert 0 < np.sum((a == 0) | (a == 1)) < 5


def test_clipped_units_are_told_apart_from_linear_ones():
    """A unit that is pushed below zero rests at zero; an energy without the clip would take it to -0.5."""
    net = eg.nn.HopfieldNet([2, 2], key=jax.random.key(0))
    net = eqx.tree_at(lambda n: (*n.weights, *n.biases), net, (jnp.zeros((2, 2)), jnp.asarray([-0.5, 0.3])))
    u = jnp.ones(2)
    for bounds in (net.bounds, None):
        np.testing.assert_allclose(eg.equilibrium(net, net.start(u), u, bounds=bounds).state[0], [0, 0.3], atol=1e-4)
    driven = eqx.tree_at(lambda n: n.biases[0], net, jnp.asarray([0.2, 1.5]))
    np.testing.assert_allclose(eg.equilibrium(driven, net.start(u), u, bounds=net.bounds).state[0], [0.2, 1], atol=1e-4)
    with pytest.raises(eqx.EquinoxRuntimeError, match="did not come to rest"):
        eg.equilibrium(driven, net.start(u), u)
    beyond = (jnp.asarray([-0.2, 1.5]),)
    np.testing.assert_allclose(net.activity(beyond)[0], [0, 1])
    # At a bound a unit responds to its field, so it can leave the bound.
    slope = jax.grad(net)((jnp.asarray([0.0, 0.0]),), u)[0]
    np.testing.assert_allclose(slope, [0.5, -0.3], rtol=1e-6)


def test_tanh_units_have_no_box(new_key):
    net = eg.nn.HopfieldNet([3, 5, 2], "tanh", key=new_key())
    u = jnp.asarray([0.5, -0.2, 0.9])
    a, b = net.rest(u).state
    field = u @ net.weights[0] + jnp.tanh(b) @ net.weights[1].T
    np.testing.assert_allclose(a, (1 - jnp.tanh(a) ** 2) * field, atol=1e-4)
    assert net.bounds is None
    assert np.any(a < 0)


def test_a_weight_learns_from_the_units_it_joins():
    """The contrast of EP is local: the gradient of a weight by hand, from two nudged states."""
    net = eg.nn.HopfieldNet([3, 4, 2], key=jax.random.key(0))
    net = eqx.tree_at(lambda n: n.weights, net, tuple(0.3 * w for w in net.weights))
    net = eqx.tree_at(lambda n: n.biases, net, (jnp.full(4, 0.4), jnp.full(2, 0.3)))
    u, target, beta = jnp.asarray([0.5, -0.2, 0.9]), jnp.asarray([0.1, 0.8]), 0.05

    def loss(net):
        return 0.5 * jnp.sum((net.rest(u, gradient=eg.EP(eg.Symmetric(beta))).state[-1] - target) ** 2)

    found = eqx.filter_grad(loss)(net).weights[1]
    push = net.rest(u).state[-1] - target

    def nudged(beta):
        def pushed(s, u):
            return net(s, u) - beta * jnp.sum(push * s[-1])

        solver = eg.LayerwiseRelaxation()
        a, b = eg.equilibrium(pushed, net.start(u), u, bounds=net.bounds, solver=solver).state
        return a[:, None] * b[None, :]

    np.testing.assert_allclose(found, (nudged(beta) - nudged(-beta)) / (2 * beta), rtol=1e-3, atol=1e-4)
    assert np.any(np.abs(found) > 1e-2)


@pytest.mark.fast
def test_a_circuit_obeys_kirchhoff():
    """A divider with a diode to ground: the current through the resistors is that of the diode and the load."""
    net = eg.nn.ResistiveNet(3, 2, [(0, 2), (2, 1)], [(2, 1)], conductance=jnp.asarray([2.0, 0.5]), saturation=1e-2)
    u = jnp.asarray([1.0, 0.0])
    (v,) = np.asarray(eg.equilibrium(net, jnp.zeros(1), u, solver=eg.Newton()).state)
    assert 0.1 < v < 0.5  # without the diode it would be 0.8
    np.testing.assert_allclose(2.0 * (1 - v), 0.5 * v + 1e-2 * np.expm1(v / 0.1), rtol=1e-4)


@pytest.mark.float64_only
def test_a_diode_beyond_its_knee_is_a_resistor():
    net = eg.nn.ResistiveNet(2, 1, [(0, 1)], [(1, 0)], saturation=1.0, thermal_voltage=0.1, knee=3.0)

    def current(v):
        """Return the current into the free node, less that through the resistor."""
        slope = jax.grad(lambda s: net(s, jnp.zeros(1)))(jnp.full(1, v))[0]
        return slope - v

    v = jnp.asarray([-1.0, 0.0, 0.2, 0.3, 0.4, 50.0])
    slope = np.exp(3.0) / 0.1
    expected = [*np.expm1(np.asarray(v[:4]) / 0.1), np.expm1(3.0) + 0.1 * slope, np.expm1(3.0) + 49.7 * slope]
    np.testing.assert_allclose(jax.vmap(current)(v), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.float64_only
def test_leading_axes_add_up(new_key):
    hopfield = eg.nn.HopfieldNet([3, 5, 2], key=new_key())
    circuit = eg.nn.ResistiveNet(4, 2, [(0, 2), (2, 3), (3, 1)], [(2, 1)])
    for net, s in ((hopfield, (jnp.ones((3, 5)), jnp.ones((3, 2)))), (circuit, jnp.ones((3, 2)))):
        u = jax.random.normal(new_key(), (3, 3 if net is hopfield else 2))
        np.testing.assert_allclose(net(s, u), jnp.sum(jax.vmap(net)(s, u)), rtol=1e-5)


@pytest.mark.float64_only
@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: eg.nn.HopfieldNet([3], key=jax.random.key(0)), "sizes"),
        (lambda: eg.nn.HopfieldNet([3, 0], key=jax.random.key(0)), "sizes"),
        (lambda: eg.nn.HopfieldNet([3, 2], "relu", key=jax.random.key(0)), "hard-sigmoid"),
        (lambda: eg.nn.HopfieldNet([3, 2], key=jax.random.key(0)).rest(jnp.ones(4)), "3 inputs"),
        (lambda: eg.nn.ResistiveNet(3, 1, [(0, 1), (1, 1)]), "two different nodes"),
        (lambda: eg.nn.ResistiveNet(3, 1, [(0, 3)]), "two different nodes"),
        (lambda: eg.nn.ResistiveNet(3, 1, [(0, 1)]), r"free nodes \[2\]"),
        (lambda: eg.nn.ResistiveNet(2, 1, [(0, 1)], conductance=jnp.ones(2)), "shape"),
        (lambda: eg.nn.ResistiveNet(2, 1, [(0, 1)], knee=0.0), "positive"),
        (lambda: eg.nn.ResistiveNet(2, 2, [(0, 1)]), "has to be free"),
        (lambda: eg.nn.ResistiveNet(3, 2, [(0, 2)])(jnp.ones(1), jnp.ones(3)), "2 held nodes .* shift"),
        (lambda: eg.nn.ResistiveNet(3, 2, [(0, 2)])(jnp.ones(2), jnp.ones(2)), "2 held nodes .* shift"),
    ],
)
def test_misuse(make, complaint):
    with pytest.raises(ValueError, match=complaint):
        make()


@pytest.mark.float64_only
def test_conductances_are_positive():
    with pytest.raises(ValueError, match=r"conductance=-1.0 must be positive"):
        eg.nn.ResistiveNet(2, 1, [(0, 1)], conductance=-1.0)
    with pytest.raises(RuntimeError, match="conductance must be positive"):
        jax.jit(lambda g: eg.nn.ResistiveNet(2, 1, [(0, 1)], conductance=g).log_conductance)(-1.0)
