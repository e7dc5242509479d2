"""Two-point problems do not depend on units: bit for bit where these are powers of two, to rounding in SI."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import echograd as eg
from cases import worst
from echograd.boundary import End

X64 = jax.config.jax_enable_x64


class Duet(eg.SeparableHamiltonian):
    mass: Array
    spring: Array
    quartic: Array
    force: Array

    def kinetic(self, t, p):
        return 0.5 * jnp.sum(p**2 / self.mass)

    def potential(self, t, q, u):
        springs = 0.5 * jnp.sum(self.spring * q**2) + 0.25 * self.quartic * jnp.sum(jnp.diff(q) ** 4)
        return springs - jnp.sum(self.force * q)


# Everything that has a unit, and the powers of the units of coordinates, momenta and time that are in it.
GIVEN = {
    "mass": ([1.0, 1.5], (-1, 1, 1)),
    "spring": ([1.0, 0.5], (-1, 1, -1)),
    "quartic": (0.3, (-3, 1, -1)),
    "force": ([0.3, -0.1], (0, 1, -1)),
    "dt": (0.3, (0, 0, 1)),
    "q0": ([0.7, -0.4], (1, 0, 0)),
    "p0": ([0.3, 0.5], (0, 1, 0)),
    "qN": ([0.3, 0.4], (1, 0, 0)),
    "pN": ([-0.5, 0.6], (0, 1, 0)),
    "k": ([[1.0, 0.3], [-0.2, 0.7]], (-1, 1, 0)),
    "wq": ([1.0, 0.5], (-1, 0, 0)),
    "wp": ([-0.7, 0.4], (0, -1, 0)),
    "beta": (1e-3, (1, 1, 0)),
}


def given(*units):
    """Return all of it where the units are these powers of two."""
    return {name: jnp.asarray(x) * 2.0 ** np.dot(powers, units) for name, (x, powers) in GIVEN.items()}


def mixed_rows(x, units):
    """Rows that mix everything, each in another unit."""
    rows = np.random.default_rng(0).normal(size=(4, 8))
    ends = np.concatenate([x[name] for name in ("q0", "p0", "qN", "pN")])
    rows = rows * 2.0 ** np.repeat([-units[0], -units[1]] * 2, 2) * 2.0 ** np.asarray([3, -2, 5, 0])[:, None]
    return eg.LinearBoundary(jnp.asarray(rows, x["q0"].dtype), jnp.asarray(rows @ ends, x["q0"].dtype))


CONDITIONS = {
    "fixed": lambda x, units: eg.FixedEnds(x["q0"], x["qN"]),
    "free": lambda x, units: eg.FreeEnds(x["p0"], x["pN"]),
    "mixed": lambda x, units: eg.MixedEnds(x["q0"], x["pN"]),
    "antiperiodic": lambda x, units: eg.Periodic(-1),
    "at rest": lambda x, units: eg.Periodic(),
    "robin": lambda x, units: eg.Robin(x["k"], -x["k"].T, x["p0"] - x["k"] @ x["q0"], x["pN"]),
    "linear": mixed_rows,
}


@eqx.filter_jit
def solved(x, rows, data, guided):
    """The path, and the gradient with respect to everything by several rules, in shares of the loss."""
    arguments = Duet(*(x[name] for name in ("mass", "spring", "quartic", "force"))), x["dt"], rows, data

    def loss(arguments, rule):
        system, dt, rows, data = arguments
        guess = (x["q0"], x["p0"]) if guided else None
        boundary = eg.LinearBoundary(rows, data)
        sol = eg.solve(system, boundary, dt=dt, steps=5, guess=guess, gradient=rule)
        return jnp.sum(jnp.sin(x["wq"][None] * sol.q) + (x["wp"][None] * sol.p) ** 2), (sol.q, sol.p, sol.convergence)

    rules = (eg.Glep(), eg.Glep(eg.Symmetric(x["beta"]))) if guided else (eg.Glep(eg.Symmetric("auto")),)
    found = [eqx.filter_grad(loss, has_aux=True)(arguments, rule) for rule in rules]
    shares = [jax.tree.map(jnp.multiply, arguments, gradient) for gradient, _ in found]
    return shares, found[0][1]


def measured(name, units, guided):
    x = given(*units)
    boundary = CONDITIONS[name](x, units)
    shares, (q, p, convergence) = solved(x, *boundary.rows(None, End(0.0, None), End(0.0, None), x["q0"]), guided)
    return shares, q / 2.0 ** units[0], p / 2.0 ** units[1], convergence


@pytest.mark.parametrize("name", CONDITIONS)
def test_other_units_change_no_bit_of_a_path_or_its_gradients(name):
    """The mass of a step, the strength of a nudge and the guess have units too; single precision has less room."""
    far = [(60, -60, 31), (-59, 60, -60), (-60, -57, 20)] if X64 else [(10, -9, 7), (-9, 10, -8), (-10, -9, 5)]
    for guided in (True, False) if name in ("fixed", "robin") else (True,):
        expected = measured(name, (0, 0, 0), guided)
        assert expected[-1].converged
        for units in far:
            jax.tree.map(np.testing.assert_array_equal, measured(name, units, guided), expected)


class Pair(eg.SeparableHamiltonian):
    """A relative motion in the plane: Lennard-Jones, Kepler, or two ions in a trap."""

    mass: Array
    depth: Array
    radius: Array
    gravity: Array
    trap: Array

    def kinetic(self, t, p):
        return jnp.sum(p * (p / self.mass)) / 2

    def potential(self, t, q, u):
        r = jnp.sqrt(jnp.sum(q**2))
        close = (self.radius / r) ** 6
        return 4 * self.depth * (close**2 - close) - self.gravity / r + self.trap * r**2 / 2


@eqx.filter_jit
def orbit(system, boundary, dt, length, guess):
    def loss(system, rule):
        sol = eg.solve(system, boundary, dt=dt, steps=30, guess=guess, gradient=rule)
        return jnp.sum((sol.q[12] / length) ** 2), (sol.q / length, sol.convergence)

    rules = eg.Glep(), eg.Glep(eg.Symmetric("auto"))
    found = [eqx.filter_grad(loss, has_aux=True)(system, rule) for rule in rules]
    return [jax.tree.map(jnp.multiply, system, gradient) for gradient, _ in found], found[0][1]


SI = {  # what acts, a length, the time of a run, and where and how fast one begins in these
    "argon": ({"mass": 3.32e-26, "depth": 1.65e-21, "radius": 3.4e-10}, 4e-10, 1e-12, (0.95, 0.02), (0.2, 0.1)),
    "the earth": ({"mass": 5.97e24, "gravity": 5.97e24 * 1.327e20}, 1.496e11, 2.6e6, (1.0, 0.0), (0.0, 0.5)),
    "ions": ({"mass": 6.64e-26, "gravity": -2.3e-28, "trap": 6.64e-26 * 6.3e6**2}, 4e-6, 4e-7, (1.0, 0.1), (0.2, 0.1)),
}


@pytest.mark.float64_only
@pytest.mark.parametrize("name", SI)
def test_in_si_units_it_is_the_same_path_and_gradient(name):
    acting, length, time, start, speed = SI[name]
    mass, energy = acting["mass"], acting["mass"] * (length / time) ** 2
    units = {"mass": mass, "depth": energy, "radius": length, "gravity": energy * length, "trap": energy / length**2}
    si = {k: jnp.asarray(acting.get(k, 0.0)) for k in units}
    natural = {k: si[k] / units[k] for k in units}

    start, speed = jnp.asarray(start), jnp.asarray(speed)
    near = eg.solve(Pair(**natural), eg.InitialValue(start, speed), dt=1 / 30, steps=30, save=eg.FinalNode()).q

    def found(system, mass, length, time):
        ends = eg.FixedEnds(length * start, length * (near + 0.01))
        guess = length * start, mass * length / time * speed
        return orbit(Pair(**system), ends, jnp.asarray(time / 30), jnp.asarray(length), guess)

    (exact, finite), (path, convergence) = found(si, mass, length, time)
    (expected, _), (reference, _) = found(natural, 1.0, 1.0, 1.0)
    np.testing.assert_allclose(path, reference, rtol=1e-9, atol=1e-9)
    assert convergence.residual < 1e-13

    def acts(x):
        return {k: getattr(x, k) for k in acting}

    assert worst(acts(exact), acts(expected)) < 1e-8
    assert worst(acts(finite), acts(expected)) < 1e-6


class Pendulum(eg.SeparableHamiltonian):
    gravity: Array

    def kinetic(self, t, p):
        return 0.5 * jnp.sum(p**2)

    def potential(self, t, q, u):
        return -self.gravity * jnp.sum(jnp.cos(q))


@eqx.filter_jit
def swing(nudge, p0):
    def loss(gravity):
        ends, guess = eg.FixedEnds(jnp.zeros(1), jnp.zeros(1)), (jnp.zeros(1), p0)
        options = {"dt": 0.2, "steps": 40, "guess": guess, "gradient": eg.Glep(nudge)}
        return jnp.sum(eg.solve(Pendulum(gravity), ends, **options).q[10])

    return jax.grad(loss)(jnp.ones(()))


@pytest.mark.float64_only
def test_a_nudged_path_that_left_for_elsewhere_is_refused():
    """A pendulum that is to be at the bottom again after more than a period, swinging; or at rest."""
    nudge, swinging = eqx.Partial(lambda beta: eg.Symmetric(beta)), jnp.full(1, 1.6)
    assert float(swing(nudge(jnp.asarray(0.01)), swinging)) == pytest.approx(1.6959882, rel=1e-4)
    for beta in (1.0, 5.0):  # at 1 it is off by 28 %
        with pytest.raises(eqx.EquinoxRuntimeError, match=r"not the continuation of the free one|no nudged path"):
            jax.block_until_ready(swing(nudge(jnp.asarray(beta)), swinging))


@pytest.mark.float64_only
def test_what_is_not_a_number_does_not_pass():
    nudge, swinging = eg.Infinitesimal(), jnp.full(1, 1.6)

    def rooted(gravity):
        ends = eg.FixedEnds(jnp.zeros(1), jnp.ones(1))
        sol = eg.solve(Pendulum(gravity), ends, dt=0.2, steps=4, gradient=eg.Glep(nudge))
        return jnp.sqrt(jnp.sum(sol.q[0] ** 2))  # which has no slope at zero

    with pytest.raises(eqx.EquinoxRuntimeError, match="holds a NaN or an infinity"):
        jax.block_until_ready(eqx.filter_jit(jax.grad(rooted))(jnp.ones(())))
    with pytest.raises(eqx.EquinoxRuntimeError, match="the guess of the path holds a NaN"):
        jax.block_until_ready(swing(nudge, jnp.nan * swinging))
