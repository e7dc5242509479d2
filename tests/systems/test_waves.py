"""Waves: the soliton, right and wrong mirrors, and the propagator at coinciding eigenvalues."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import echograd as eg
from cases import solve, worst
from echograd.systems import Hopping, KerrLattice, NonlinearSchroedinger

pytestmark = pytest.mark.least_effort

# A phase between two sites, in a ring: no gauge transformation removes it.
RING = np.array([[0, np.exp(0.5j), 0, 1], [np.exp(-0.5j), 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0]])


def start(n=4):
    rng = np.random.default_rng(2)
    return eg.InitialValue(*eg.canonical(jnp.asarray(rng.normal(size=n) + 1j * rng.normal(size=n))))


@pytest.mark.fast
def test_a_wave_is_a_canonical_state():
    psi = {"a": jnp.asarray([1.0 + 2.0j, -0.5j]), "b": jnp.asarray(3.0 + 0.0j)}
    there = eg.wave(*eg.canonical(psi))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), there, psi)
    with pytest.raises(ValueError, match="canonical"):
        eg.InitialValue(psi, psi)


@pytest.mark.fast
def test_intensity_and_equation_of_motion():
    """i dψ/dt = ∂H/∂ψ*, with the constants of the docstring."""
    lattice = KerrLattice(RING, jnp.asarray([0.1, 0.2, 0.3, 0.4]), jnp.asarray(0.7))
    q, p = start().q, start().p
    dq, dp = jax.grad(lattice, (1, 2))(0.0, q, p, None)
    psi = np.asarray(eg.wave(q, p))
    expected = np.asarray([0.1, 0.2, 0.3, 0.4]) * psi + 0.7 * np.abs(psi) ** 2 * psi + RING @ psi
    np.testing.assert_allclose(1j * eg.wave(dp, -dq), expected, rtol=1e-5)


@pytest.mark.float64_only
def test_the_soliton_keeps_its_shape():
    """ψ = sech(x) exp(it/2), with an error that falls as the square of the step."""
    x = jnp.linspace(-20, 20, 160, endpoint=False)
    field = NonlinearSchroedinger(0 * x, -1.0, spacing=0.25, ends="periodic")

    @eqx.filter_jit
    def error(steps):
        soliton = eg.InitialValue(*eg.canonical(1 / jnp.cosh(x)))
        sol = eg.solve(field, soliton, dt=2.0 / steps, steps=steps, save=eg.FinalNode())
        return jnp.max(jnp.abs(eg.wave(sol.q, sol.p) - jnp.asarray(np.exp(1j) / np.cosh(x))))

    assert error(80) < 1e-3
    assert jnp.log2(error(40) / error(80)) == pytest.approx(2, abs=0.1)


@pytest.mark.float64_only
def test_sine_modes_stand_still():
    """A mode of the open line rotates at its own frequency, k²/2."""
    n, m = 11, 3
    mode = jnp.asarray(np.sin(np.pi * m * np.arange(1, n + 1) / (n + 1)))
    field = NonlinearSchroedinger(jnp.zeros(n), 0.0, spacing=0.5)
    sol = eg.solve(field, eg.InitialValue(*eg.canonical(mode)), dt=0.3, steps=5, save=eg.FinalNode())
    k = jnp.pi * m / (n + 1) / 0.5
    np.testing.assert_allclose(eg.wave(sol.q, sol.p), np.asarray(mode) * np.exp(-0.75j * k**2), atol=1e-13)


@pytest.mark.float64_only
def test_the_right_mirror_retraces_and_the_wrong_one_does_not():
    """The reflection that exchanges sites 0, 1 and 2, 3 transposes the ring; the identity does not."""
    right, wrong = KerrLattice(RING, 0.1, 0.5, reflection=[1, 0, 3, 2]), KerrLattice(RING, 0.1, 0.5)
    assert eg.retrace_error(right, start(), dt=0.1, steps=10) < 1e-13
    assert eg.retrace_error(wrong, start(), dt=0.1, steps=10) > 1e-2


@pytest.mark.parametrize(
    "lattice",
    [
        KerrLattice(RING, 0.1, 0.5),
        KerrLattice(RING, [0.1, 0.2, 0.3, 0.3], 0.5, reflection=[1, 0, 3, 2]),
        KerrLattice(RING, 0.1, [0.5, 0.5, 0.5, 0.4], reflection=[1, 0, 3, 2]),
        KerrLattice(RING, 0.1, 0.5, reflection=[2, 3, 0, 1]),
    ],
    ids=["no mirror", "detuning", "kerr", "another mirror"],
)
def test_an_echo_without_its_mirror_is_refused(lattice):
    def loss(lattice):
        return jnp.sum(eg.solve(lattice, start(), dt=0.1, steps=3).q)

    with pytest.raises(eqx.EquinoxRuntimeError, match="not time-reversible"):
        eqx.filter_grad(loss)(lattice)


@pytest.mark.float64_only
def test_the_propagator_where_eigenvalues_coincide():
    """Derivatives to second order against finite differences, at a matrix with double eigenvalues."""
    ring = jnp.asarray(np.roll(np.eye(4), 1, 0) + np.roll(np.eye(4), -1, 0))
    direction = jnp.asarray(np.random.default_rng(0).normal(size=(4, 4)))
    q, p = start().q, start().p

    def f(x, s):
        q1, p1 = Hopping(ring + x * direction).flow(q, p, s)
        return jnp.sum(jnp.sin(q1) * p1)

    slope = jax.grad(f, (0, 1))
    x, s, eps = jnp.asarray(0.0), jnp.asarray(0.8), 1e-4

    @jax.jit
    def both(x, s):
        """Return the value, first and second derivatives, the latter forward over reverse as in an echo."""
        return f(x, s), slope(x, s), jax.jacfwd(slope)(x, s)

    _, first, second = both(x, s)
    up, down, later, before = both(x + eps, s), both(x - eps, s), both(x, s + eps), both(x, s - eps)
    np.testing.assert_allclose(first[0], (up[0] - down[0]) / (2 * eps), rtol=1e-6)
    np.testing.assert_allclose(first[1], (later[0] - before[0]) / (2 * eps), rtol=1e-6)
    np.testing.assert_allclose(second[0], (up[1][0] - down[1][0]) / (2 * eps), rtol=1e-6)
    np.testing.assert_allclose(second[1], (up[1][1] - down[1][1]) / (2 * eps), rtol=1e-6)
    # Beyond the range of the quadrature derivatives are NaN, not silently inaccurate.
    assert np.isfinite(both(x, 5 * s)[1][0])
    assert np.isnan(both(x, 20 * s)[1][0])


@pytest.mark.float64_only
@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: KerrLattice(jnp.ones((2, 3)), 0.0, 0.0), "square matrix"),
        (lambda: KerrLattice(jnp.eye(2), jnp.zeros(3), 0.0), "detuning has shape"),
        (lambda: KerrLattice(jnp.eye(2), 0.0, jnp.zeros(1)), "kerr has shape"),
        (lambda: KerrLattice(jnp.eye(2), 0.0, 1j), "kerr is complex"),
        (lambda: KerrLattice(jnp.eye(3), 0.0, 0.0, reflection=[1, 2, 0]), "not an involution"),
        (lambda: KerrLattice(jnp.eye(3), 0.0, 0.0, reflection=[0, 1]), "not an involution"),
        (lambda: NonlinearSchroedinger(jnp.zeros(4), 1.0, ends="closed"), "choose one of"),
        (lambda: NonlinearSchroedinger(jnp.zeros(4), jnp.zeros(3)), "nonlinearity"),
        (lambda: NonlinearSchroedinger(jnp.zeros(4), 0.0, spacing=0.0), "positive"),
        (lambda: NonlinearSchroedinger(jnp.asarray(0.0), 0.0), "one number per grid point"),
    ],
)
def test_what_does_not_fit_is_refused(make, complaint):
    with pytest.raises(ValueError, match=complaint):
        make()


@pytest.mark.float64_only
def test_finite_nudges_read_complex_hoppings_and_drives():
    """Imaginary parts count, too. A complex nudge cannot distinguish the two, and raises an error."""
    drive = jnp.asarray(0.1 * np.exp(1j * np.arange(48.0)).reshape(12, 4))

    @eqx.filter_jit
    def gradient(hopping, drive, rule):
        def loss(arguments):
            hopping, drive = arguments
            lattice = KerrLattice(hopping, kerr=0.3, reflection=[1, 0, 3, 2])
            sol = solve(lattice, start(), drive, dt=0.05, gradient=rule, save=eg.FinalNode())
            return jnp.sum(jnp.abs(eg.wave(sol.q, sol.p)) ** 4)

        return eqx.filter_grad(loss)((hopping, drive))

    hopping = jnp.asarray(RING)
    exact = gradient(hopping, drive, eg.Backprop())
    assert all(jnp.linalg.norm(x.imag) > 0.01 * jnp.linalg.norm(x) for x in exact)
    assert worst(gradient(hopping, drive, eg.Echo(eg.Symmetric())), exact) < 1e-7
    with pytest.raises(TypeError, match="real parameters and inputs only"):
        gradient(hopping, drive, eg.Echo(eg.Holomorphic()))
