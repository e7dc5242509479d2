"""Damped systems for the tests, and the lossy device that a plain echo is tried on."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

import echograd as eg
from cases import mixed

STEPS = 11


class Case(NamedTuple):
    """Everything that a gradient can be taken with respect to."""

    system: Any
    q: Any
    p: Any
    inputs: Any
    dt: Any
    t0: Any
    weight: Any


def draws(seed):
    rng = np.random.default_rng(seed)
    return lambda *shape: jnp.asarray(rng.normal(size=shape))


def symmetric(matrix):
    return 0.5 * (matrix + matrix.T)


class Modulated(eqx.Module):
    """A stiffness matrix that changes in time."""

    mean: Array
    depth: Array
    pace: Array

    def __call__(self, t):
        return self.mean + jnp.sin(self.pace * t) * self.depth


class Network(eg.Dissipative):
    """Masses on springs and dashpots: its elements are the parameters, so it is reciprocal whatever they are."""

    mass: dict[str, Array]
    spring: Array
    dashpot: Array
    ground: Array

    def inertia(self, v):
        return {"a": self.mass["a"] * v["a"], "b": self.mass["b"] * v["b"]}

    def friction(self, v):
        return self._pull(self.dashpot, v)

    def force(self, t, q, u):
        pull = self._pull(self.spring, q)
        return {"a": u["a"] - pull["a"], "b": u["b"] * self.ground - pull["b"]}

    def _pull(self, strength, x):
        """Return the pull of elements between the neighbours of the ring a₀ a₁ b₀ b₁ b₂, and to the ground."""
        flat = jnp.concatenate([x["a"], x["b"]])
        strained = strength * (flat - jnp.roll(flat, 1))
        pull = strained - jnp.roll(strained, -1) + self.ground * flat
        return {"a": pull[:2], "b": pull[2:]}


def network(steps=STEPS):
    draw = draws(4)
    system = Network(
        {"a": jnp.asarray([1.0, 0.4]), "b": jnp.asarray([0.7, 1.9, 1.2])},
        jnp.asarray([0.9, 1.6, 0.5, 1.1, 0.8]),
        jnp.asarray([0.8, 0.1, 0.5, 0.05, 0.3]),
        jnp.asarray(0.3),
    )
    state = [{"a": draw(2), "b": draw(3)} for _ in range(2)]
    return Case(system, *state, {"a": draw(steps, 2), "b": draw(steps, 3)}, *numbers(0.3, 0.2), draw(3))


def numbers(*x):
    return tuple(map(jnp.asarray, x))


def dense(steps=STEPS):
    """Full matrices, none of them proportional to another, the stiffness moving in time."""
    draw = draws(1)
    a, b, c, d = (symmetric(draw(3, 3)) for _ in range(4))
    eye = jnp.eye(3)
    system = eg.LinearDamped(
        2 * eye + 0.3 * a, 0.5 * eye + 0.4 * b, Modulated(1.5 * eye + 0.5 * c, 0.4 * d, jnp.asarray(1.3)), draw(3, 2)
    )
    return Case(system, draw(3), draw(3), draw(steps, 2), *numbers(0.25, 0.4), draw(3))


class Resistors(eg.Dissipative):
    """Overdamped: capacitors to the ground, resistors between the nodes."""

    capacitance: Array
    conductance: Array

    def inertia(self, v):
        return jnp.zeros_like(v)

    def friction(self, v):
        return self.capacitance * v

    def force(self, t, q, u):
        between = jnp.asarray([[1.0, -1, 0], [0, 1, -1], [1, 0, -1]], q.dtype)
        return u - between.T @ (self.conductance * (between @ q))


def circuit(steps=STEPS):
    draw = draws(2)
    system = Resistors(jnp.asarray([1.0, 0.4, 2.0]), jnp.asarray([0.7, 0.5, 0.3]))
    return Case(system, draw(3), jnp.zeros(3), draw(steps, 3), *numbers(0.3, 0.0), draw(3))


class Diodes(Resistors):
    """The circuit with conductances that depend on the voltage: reciprocal, but not linear."""

    def force(self, t, q, u):
        between = jnp.asarray([[1.0, -1, 0], [0, 1, -1], [1, 0, -1]], q.dtype)
        return u - between.T @ (self.conductance * jnp.expm1(between @ q))


def diodes():
    case = circuit()
    return case._replace(system=Diodes(case.system.capacitance, case.system.conductance))


def normal_form(twist=True, steps=STEPS):
    """The same circuit as q' = -C⁻¹ G q + C⁻¹ j: not symmetric, but so under the twist C⁻¹ (Onsager)."""
    draw = draws(2)
    between = jnp.asarray([[1.0, -1, 0], [0, 1, -1], [1, 0, -1]])
    inverse = jnp.diag(1 / jnp.asarray([1.0, 0.4, 2.0]))
    stiffness = inverse @ between.T @ jnp.diag(jnp.asarray([0.7, 0.5, 0.3])) @ between
    system = eg.LinearDamped(None, jnp.asarray(1.0), stiffness, inverse, inverse if twist else None)
    return Case(system, draw(3), jnp.zeros(3), draw(steps, 3), *numbers(0.3, 0.0), draw(3))


def hatano_nelson(twist=True, steps=STEPS):
    """Hops stronger to one side, mirror-symmetric on-site springs: twisted by the reflection."""
    draw = draws(3)
    hop, skew = 0.6, 0.4
    on_site = jnp.diag(jnp.asarray([0.5, 0.8, 0.3, 0.8, 0.5]) + 1.5)
    up, down = jnp.eye(5, k=1), jnp.eye(5, k=-1)
    stiffness = on_site + hop * (jnp.exp(skew) * up + jnp.exp(-skew) * down)
    reflection = jnp.eye(5)[::-1] if twist else None
    system = eg.LinearDamped(jnp.asarray(1.0), 0.2 * jnp.eye(5), stiffness, None, reflection)
    return Case(system, draw(5), draw(5), draw(steps, 5), *numbers(0.3, 0.0), draw(5))


def gyroscope(twist=True, steps=STEPS):
    """A Coriolis force beside a real friction: antisymmetric, undone by a mirror."""
    draw = draws(5)
    damping = jnp.asarray([[0.3, 0.8], [-0.8, 0.1]])
    system = eg.LinearDamped(
        jnp.asarray([1.0, 1.5]), damping, jnp.asarray([1.2, 0.7]), None, jnp.asarray([1.0, -1.0]) if twist else None
    )
    return Case(system, draw(2), draw(2), draw(steps, 2), *numbers(0.3, 0.0), draw(2))


class Cubic(eg.Dissipative):
    """Nonlinear springs and unequal damping: no gradient on the same hardware."""

    spring: Array
    dashpot: Array

    def inertia(self, v):
        return v

    def friction(self, v):
        return self.dashpot * v

    def force(self, t, q, u):
        return u - self.spring * (q + q**3)


def cubic(steps=11):
    draw = draws(6)
    system = Cubic(jnp.asarray([1.0, 0.6]), jnp.asarray([0.2, 0.7]))
    return Case(system, draw(2), draw(2), draw(steps, 2), *numbers(0.3, 0.0), draw(2))


def waveguides(twist=True, steps=STEPS):
    """Lossy waveguides, i u' + K u = f, K complex and symmetric, as real and imaginary parts: conjugation twists."""
    draw = draws(7)
    loss, hops = 0.4 * jnp.eye(4) + 0.2 * symmetric(draw(4, 4)), symmetric(draw(4, 4))
    stiffness = jnp.block([[loss, hops], [-hops, loss]])
    conjugation = jnp.concatenate([jnp.ones(4), -jnp.ones(4)]) if twist else None
    system = eg.LinearDamped(None, jnp.asarray(1.0), stiffness, None, conjugation)
    return Case(system, draw(8), jnp.zeros(8), draw(steps, 8), *numbers(0.2, 0.0), draw(8))


def lopsided(*what):
    """Full matrices of which some are not symmetric."""
    draw = draws(1)
    system = eg.LinearDamped(2 * jnp.eye(3), 0.5 * jnp.eye(3), 1.5 * jnp.eye(3))
    for name in what:
        system = eqx.tree_at(lambda s: getattr(s, name), system, getattr(system, name) + 0.3 * draw(3, 3))  # noqa: B023
    return Case(system, draw(3), draw(3), draw(11, 3), *numbers(0.3, 0.0), draw(3))


def loss(case, gradient, *, save=None, cost=True, momenta=True, throw=None):
    """A smooth scalar of everything that a solution holds. By default the oracle runs without checks at run time."""

    def running(t, q, p):
        flat = jnp.concatenate([jnp.ravel(x) for x in jax.tree.leaves((q, p))])
        return jnp.sum(case.weight) * jnp.cos(t) * jnp.sum(jnp.sin(flat) * flat)

    sol = eg.solve(
        case.system,
        eg.InitialValue(case.q, case.p),
        case.inputs,
        dt=case.dt,
        t0=case.t0,
        gradient=gradient,
        save=save,
        cost=running if cost else None,
        throw=not isinstance(gradient, eg.Backprop) if throw is None else throw,
    )
    return mixed((sol.q, sol.p if momenta else None, sol.saved, sol.t)) + 0.1 * sol.cost**2
