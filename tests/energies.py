"""The energies that the tests of the static limit relax, in one place."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

import echograd as eg


class Coupled(eqx.Module):
    """Nothing special about it: PyTree state and inputs, anharmonic, with one minimum."""

    stiffness: Array
    coupling: dict[str, Array]
    label: str = eqx.field(static=True, default="coupled")

    def __call__(self, s, u):
        well = 0.5 * jnp.sum(self.stiffness * s["a"] ** 2) + 0.1 * jnp.sum(s["a"] ** 4) + jnp.sum(jnp.cosh(s["b"]))
        bond = self.coupling["k"] * jnp.sin(jnp.sum(s["a"][:2] * s["b"]) - self.coupling["shift"])
        return well + bond - jnp.sum(u["field"] * s["a"]) - u["force"] * s["b"][0]


class Static(NamedTuple):
    """A static problem: what a gradient can be taken with respect to, and the rest."""

    energy: Any
    inputs: Any
    x0: Any
    bounds: Any
    solver: Any


def coupled(seed: int = 0) -> Static:
    """Return a smooth energy of a PyTree: also what an action is a static limit of."""
    rng = np.random.default_rng(seed)
    energy = Coupled(jnp.asarray([1.0, 1.4, 2.0]), {"k": jnp.asarray(0.3), "shift": jnp.asarray(0.4)})
    inputs = {"field": jnp.asarray(rng.normal(size=3)), "force": jnp.asarray(rng.normal())}
    x0 = {"a": jnp.zeros(3), "b": jnp.zeros(2)}
    return Static(energy, inputs, x0, None, eg.Relaxation(max_steps=100))


def hopfield(activation: str) -> Static:
    """Return a network of two layers; of clipped units some are held at either bound."""
    net = eg.nn.HopfieldNet([4, 6, 3], activation, key=jax.random.key(3))
    net = eqx.tree_at(lambda n: n.biases, net, (jnp.linspace(-1.0, 1.2, 6), jnp.linspace(0.1, 0.6, 3)))
    u = jnp.asarray([0.3, -0.5, 0.8, 0.1])
    return Static(net, u, net.start(u), net.bounds, eg.LayerwiseRelaxation(1.0 if net.bounds else 0.4, max_steps=300))


def resistive() -> Static:
    """Return a circuit with ground, two held nodes, three free ones and two diodes, one of which conducts."""
    resistors = [(0, 3), (1, 3), (3, 4), (4, 5), (5, 2), (3, 5)]
    net = eg.nn.ResistiveNet(
        6, 3, resistors, diodes=[(4, 2), (2, 5)], conductance=jnp.asarray([1.0, 0.5, 2.0, 1.5, 0.7, 0.3])
    )
    return Static(net, jnp.asarray([1.0, -0.4, 0.0]), jnp.zeros(3), None, eg.Newton())


CASES = {
    "coupled": coupled,
    "tanh units": lambda: hopfield("tanh"),
    "clipped units": lambda: hopfield("hard-sigmoid"),
    "circuit": resistive,
}
