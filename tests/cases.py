"""The systems and problems that the oracle tests run, in one place."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

import echograd as eg

STEPS = 13


class Machine(eg.SeparableHamiltonian):
    """Nothing special about it: PyTree state, coupled, anharmonic, heavy at high speed, driven, moving in time."""

    mass: Array
    spring: Array
    bond: dict[str, Array]
    sweep: Array
    label: str = eqx.field(static=True, default="machine")

    def kinetic(self, t, p):
        fast = jnp.sum(p["a"] ** 2 / self.mass) * (1 + 0.2 * jnp.sin(self.sweep * t))
        return 0.5 * fast + jnp.sum(jnp.sqrt(1 + p["b"] ** 2))

    def potential(self, t, q, u):
        field = jnp.cos(self.sweep * t) * jnp.sum(q["a"] * u["field"])
        springs = 0.5 * jnp.sum(self.spring * q["a"] ** 2) + 0.1 * jnp.sum(q["b"] ** 4)
        bond = self.bond["k"] * jnp.sin(jnp.sum(q["a"][:2] * q["b"]) - self.bond["shift"])
        return springs + bond - field - u["force"] * q["b"][0]


class Chain(eg.SeparableHamiltonian):
    """A linear chain of masses, driven at one end."""

    mass: Array
    stiffness: Array

    def kinetic(self, t, p):
        return jnp.sum(p**2 / (2 * self.mass))

    def potential(self, t, q, u):
        return 0.5 * jnp.sum(self.stiffness * q**2) + 0.3 * jnp.sum(jnp.diff(q) ** 2) - u * q[0]


class Oscillator(eg.SeparableHamiltonian):
    """The harmonic oscillator of frequency sqrt(k)."""

    k: Array

    def kinetic(self, t, p):
        return 0.5 * jnp.sum(p**2)

    def potential(self, t, q, u):
        return 0.5 * jnp.sum(self.k * q**2)


class Cost(eqx.Module):
    """A running cost that is a module with arrays of its own."""

    weight: Array

    def __call__(self, t, q, p):
        return jnp.sum(self.weight * q["a"] ** 2) * jnp.cos(t) + jnp.sum(q["b"] * p["b"])


class Point(NamedTuple):
    """Everything that a gradient can be taken with respect to."""

    system: Any
    q: Any
    p: Any
    inputs: Any
    dt: Any
    t0: Any
    cost: Any
    closed_over: Any


def machine(steps: int = STEPS, seed: int = 0) -> Point:
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return jnp.asarray(rng.normal(size=shape) * 0.7)

    system = Machine(
        jnp.asarray([1.0, 1.7, 0.6]),
        jnp.asarray([1.0, 0.4, 2.0]),
        {"k": jnp.asarray(0.8), "shift": jnp.asarray(0.3)},
        jnp.asarray(1.3),
    )
    return Point(
        system,
        {"a": draw(3), "b": draw(2)},
        {"a": draw(3), "b": draw(2)},
        {"force": draw(steps), "field": draw(steps, 3)},
        jnp.asarray(0.11),
        jnp.asarray(0.4),
        Cost(draw(3)),
        draw(2),
    )


def chain(steps: int = STEPS) -> Point:
    rng = np.random.default_rng(1)
    system = Chain(jnp.asarray([1.0, 2.0, 0.5]), jnp.asarray([1.0, 0.5, 0.7]))
    q, p, u = rng.normal(size=3), rng.normal(size=3), rng.normal(size=steps)
    return Point(system, *map(jnp.asarray, (q, p, u, 0.2, 0.0)), None, None)


def solve(*arguments: Any, gradient: Any = None, throw: bool | None = None, **options: Any) -> Any:
    """Solve; by default leave out the checks at run time if the gradient is the oracle.

    The checks raise or change nothing (`test_checks_change_no_number`), and compiling them takes longer than compiling
    the oracle. A comparison notices an oracle that is not finite.
    """
    throw = not isinstance(gradient, eg.Backprop) if throw is None else throw
    return eg.solve(*arguments, gradient=gradient, throw=throw, **options)


def mixed(tree: Any) -> Array:
    """A smooth scalar of every number in a tree, different for each."""
    total = jnp.zeros(())
    for i, x in enumerate(jax.tree.leaves(tree)):
        weights = jnp.cos(1.3 * jnp.arange(x.size, dtype=x.dtype) + i).reshape(x.shape)
        total = total + jnp.sum(weights * x) + 0.3 * jnp.sum(weights * jnp.sin(x) * x)
    return total


def errors(found: Any, expected: Any) -> dict[str, float]:
    """Return the relative error of every leaf."""
    found, expected = jax.device_get((found, expected))  # in NumPy, which compiles nothing
    pairs = zip(jax.tree_util.tree_leaves_with_path(expected), jax.tree.leaves(found), strict=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return {jax.tree_util.keystr(path): float(np.linalg.norm(x - y) / np.linalg.norm(x)) for (path, x), y in pairs}


def worst(found: Any, expected: Any) -> float:
    """Return the largest relative error of any leaf; NaN if there is one."""
    return float(np.max(list(errors(found, expected).values())))
