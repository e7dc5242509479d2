"""What is not certain from the program is done in a way that does not need it, or refused."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import echograd as eg
from cases import solve

pytestmark = [pytest.mark.float64_only, pytest.mark.least_effort]


class Lens(eg.Hamiltonian):
    """A magnetic lens downstream, where no probe looks; its strength is trained and may be zero."""

    strength: jax.Array
    stiffness: jax.Array

    def __call__(self, t, q, p, u):
        field = self.strength * jax.nn.relu(1 - (q[0] - 3.0) ** 2) ** 3
        bent = p - jnp.stack([jnp.zeros_like(q[0]), field * (q[1] + 1.0)])
        return 0.5 * jnp.sum(bent**2) + 0.5 * self.stiffness * q[1] ** 2


class Gust(eg.SeparableHamiltonian):
    """A wind that blows for a moment between any two probes; its strength is zero."""

    wind: jax.Array
    mass: jax.Array

    def kinetic(self, t, p):
        return 0.5 * jnp.sum(p**2 / self.mass) + jnp.exp(-(((t - 2.5) / 0.05) ** 2)) * jnp.sum(self.wind * p)

    def potential(self, t, q, u):
        return 0.5 * jnp.sum(q**2) + 0.25 * jnp.sum(q**4)


def last(system, start, gradient, dt, steps, throw=True):
    run = eg.solve(
        system, eg.InitialValue(*start), dt=dt, steps=steps, gradient=gradient, save=eg.FinalNode(), throw=throw
    )
    return jnp.sum(run.q**2)


CASES = {
    "lens off": (
        Lens(jnp.asarray(0.0), jnp.asarray(0.5)),
        (jnp.asarray([0.0, 0.3]), jnp.asarray([1.0, 0.2])),
        0.15,
        30,
    ),
    "lens faint": (
        Lens(jnp.asarray(1e-8), jnp.asarray(0.5)),
        (jnp.asarray([0.0, 0.3]), jnp.asarray([1.0, 0.2])),
        0.15,
        30,
    ),
    "gust": (Gust(jnp.zeros(2), jnp.ones(2)), (jnp.asarray([0.3, -0.2]), jnp.asarray([0.1, 0.4])), 0.025, 200),
}


@eqx.filter_jit
def gradients_of_all(system, start, dt, steps):
    kinds = (eg.Backprop(), False), (eg.Echo(), True), (eg.Glep(), True)
    return [eqx.filter_grad(last)(system, start, kind, dt, steps, throw) for kind, throw in kinds]


@pytest.mark.parametrize("name", ["lens off", pytest.param("lens faint", marks=pytest.mark.exhaustive), "gust"])
def test_a_parameter_odd_in_the_momentum_where_no_probe_looks(name):
    expected, *found = gradients_of_all(*CASES[name])
    for gradient in found:
        for x, y in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-9)


class HenonHeiles(eg.SeparableHamiltonian):
    stiffness: jax.Array
    cubic: jax.Array

    def kinetic(self, t, p):
        return 0.5 * jnp.sum(p**2)

    def potential(self, t, q, u):
        return 0.5 * self.stiffness * jnp.sum(q**2) + self.cubic * (q[0] ** 2 * q[1] - q[1] ** 3 / 3)


class Pair(eg.SeparableHamiltonian):
    """A chaotic motion ten million times smaller than the calm one beside it."""

    big: jax.Array
    small: HenonHeiles
    size: float = 1e-7

    def kinetic(self, t, p):
        return 0.5 * jnp.sum(p["big"] ** 2) + 0.5 * jnp.sum(p["small"] ** 2)

    def potential(self, t, q, u):
        small = self.size**2 * self.small.potential(t, q["small"] / self.size, u)
        return 0.5 * self.big * jnp.sum(q["big"] ** 2) + small


CHAOS = jnp.asarray([0.1, -0.2]), jnp.asarray([0.44, 0.28])


@pytest.mark.parametrize("hidden", [False, True], ids=["alone", "beside a large part"])
def test_chaos_is_exact_or_refused(hidden):
    """The gradient has nine digits or is refused, with a measured number, in the fixed-point run it has them always."""
    inner = HenonHeiles(jnp.asarray(1.0), jnp.asarray(1.0))
    system, start = inner, CHAOS
    if hidden:
        system = Pair(jnp.asarray(1.0), inner)
        start = tuple(
            {"big": jnp.asarray([x]), "small": system.size * z} for x, z in zip((1.0, 0.7), CHAOS, strict=True)
        )

    def loss(system, gradient, steps, integrator):
        boundary = eg.InitialValue(*start)
        run = solve(
            system, boundary, dt=0.15, steps=steps, gradient=gradient, save=eg.FinalNode(), integrator=integrator
        )
        return jnp.sum((run.q["small"] / system.size if hidden else run.q) ** 2)

    @eqx.filter_jit
    def gradient(system, kind, steps, integrator=None):
        return eqx.filter_grad(loss)(system, kind, steps, integrator)

    for x, y in zip(*(jax.tree.leaves(gradient(system, g, 100)) for g in (eg.Backprop(), eg.Echo())), strict=True):
        np.testing.assert_allclose(y, x, rtol=1e-9, atol=1e-9 * float(jnp.max(jnp.abs(x))))
    with pytest.raises(eqx.EquinoxRuntimeError, match=r"determined to a relative error of \d\S* only"):
        gradient(system, eg.Echo(), 1500)
    if hidden:
        return
    told = []
    found = gradient(system, eg.Echo(retrace_tolerance=float("inf"), report=told.append), 1500)
    expected = gradient(system, eg.Backprop(), 1500)
    off = max(abs(float(y / x) - 1) for x, y in zip(*map(jax.tree.leaves, (expected, found)), strict=True))
    assert float(told[0]) > 1e-9
    assert off <= float(told[0])
    exact = [jax.tree.leaves(gradient(system, g, 1500, eg.Leapfrog(exact=True))) for g in (eg.Backprop(), eg.Echo())]
    for x, y in zip(*exact, strict=True):
        np.testing.assert_allclose(y, x, rtol=1e-9)


def test_damping_costs_no_digits():
    """Marks along the path keep the echo of a decaying motion exact, where it used to lose a factor exp(rate T / 2)."""
    system = eg.MassDamped(HenonHeiles(jnp.asarray(1.0), jnp.asarray(0.3)), jnp.asarray(0.2))

    @eqx.filter_jit
    def gradients(system):
        kinds = (eg.Backprop(), False), (eg.Echo(), True)
        return [eqx.filter_grad(last)(system, CHAOS, kind, 0.1, 2000, throw) for kind, throw in kinds]

    expected, found = map(jax.tree.leaves, gradients(system))
    for x, y in zip(expected, found, strict=True):
        np.testing.assert_allclose(y, x, rtol=1e-9)


class Bent(eg.Dissipative):
    """A pendulum so slow that it is nearly linear."""

    stiffness: jax.Array
    damping: jax.Array

    def inertia(self, v):
        return v

    def friction(self, v):
        return self.damping * v

    def force(self, t, q, u):
        return -self.stiffness * jnp.sin(q)


class Hooke(Bent):
    def force(self, t, q, u):
        return -self.stiffness * q


def test_a_reciprocal_machine_is_linear_or_refused():
    """However small the path and large the error that drives the machine: the same gradient, or none."""
    fields = jnp.asarray([1.0, 1.5]), jnp.asarray([0.1, 0.2])

    @eqx.filter_jit
    def gradients(system, size, kind):
        start = eg.InitialValue(size * jnp.asarray([1.0, -0.5]), size * jnp.asarray([0.0, 0.7]))

        def loss(system):
            run = solve(system, start, dt=0.1, steps=40, gradient=kind)
            return jnp.sum((run.q[-1] / size - 0.3) ** 2)

        return eqx.filter_grad(loss)(system)

    for size in map(jnp.asarray, (1.0, 1e-4, 1e-30)):
        expected, found = (
            jax.tree.leaves(gradients(Hooke(*fields), size, g)) for g in (eg.Backprop(), eg.Reciprocal())
        )
        for x, y in zip(expected, found, strict=True):
            np.testing.assert_allclose(y, x, rtol=1e-9)
    for size in map(jnp.asarray, (1e-2, 1e-4)):
        with pytest.raises(eqx.EquinoxRuntimeError, match=r"nonlinear \(relative deviation \d"):
            gradients(Bent(*fields), size, eg.Reciprocal())


class Hertz(eg.SeparableHamiltonian):
    """A contact force without a second derivative at rest."""

    stiffness: jax.Array

    def kinetic(self, t, p):
        return 0.5 * jnp.sum(p**2)

    def potential(self, t, q, u):
        return self.stiffness * jnp.sum(jnp.abs(q) ** 1.5)


@pytest.mark.parametrize("gradient", [eg.Echo(), eg.Glep(), eg.Backprop()], ids=lambda g: type(g).__name__)
def test_no_nan_gradient_passes(gradient):
    start = jnp.asarray([0.0, 0.5]), jnp.zeros(2)
    system = Hertz(jnp.asarray(1.0))
    assert np.isfinite(last(system, start, gradient, 0.05, 20))
    with pytest.raises(eqx.EquinoxRuntimeError, match="its gradient is not"):
        eqx.filter_jit(eqx.filter_grad(last))(system, start, gradient, 0.05, 20)
    assert np.isnan(eqx.filter_grad(last)(system, start, gradient, 0.05, 20, throw=False).stiffness)
