"""Nonlinear resistive networks: circuits that compute by coming to equilibrium."""

import operator
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._internal import _checks
from .._internal._errors import ArgumentError, ArgumentTypeError

Pairs = tuple[tuple[int, int], ...]


class ResistiveNet(eqx.Module):
    r"""A circuit of resistors and diodes, with some nodes held at given voltages.

    At equilibrium the co-content is minimal, which is Kirchhoff's current law at every free node:

    $$E(v) = \sum_{(i, j)} \tfrac12 g_{ij} (v_i - v_j)^2 + \sum_{(a, c)} \Phi(v_a - v_c), \quad
    \Phi(V) = I_0 \bigl( V_T (e^{V/V_T} - 1) - V \bigr)$$

    The slope of Φ is Shockley's current $I_0 (e^{V/V_T} - 1)$. Above `knee` thermal voltages the current continues
    along its tangent, as through a small series resistance, which prevents overflow. A nudge is a current into the
    nodes that the cost depends on. The derivative of the co-content with respect to a conductance is half the squared
    voltage across it, so learning is local.

    The state is the voltages of the free nodes, the inputs are those of the held nodes. Both may have the same leading
    axes for a batch, whose co-contents are summed. The parameters are the logarithms of conductances and saturation
    currents, which keeps these positive.

    Args:
        nodes: number of nodes; the first `inputs` are held.
        inputs: number of held nodes, ground included.
        resistors: pairs of nodes joined by a resistor.
        diodes: pairs (anode, cathode) of nodes joined by a diode.
        conductance: of the resistors, in units of current over voltage; one number or one each.
        saturation: saturation current $I_0$ of the diodes, in units of current; one number or one each.
        thermal_voltage: $V_T$, in units of voltage.
        knee: diode voltage above which the tangent replaces the exponential, in thermal voltages.

    Raises:
        ArgumentError: if a node does not exist, an element joins a node with itself, no node is free, a free node has
            no resistor, or a number is not positive; when called, if the numbers of voltages and nodes differ.
        ArgumentTypeError: if elements are not pairs of nodes, or an argument has the wrong type.
        RuntimeError: at run time, if a traced conductance or saturation current is not positive.

    Source: W. Millar, Phil. Mag. 42 (1951) 1150, for the co-content; J. Kendall et al., arXiv 2006.01981, for its
    equilibrium propagation.

    Example:
        ```python
        net = eg.nn.ResistiveNet(4, 2, resistors=[(0, 2), (2, 3), (3, 1)], diodes=[(2, 1)])
        found = eg.equilibrium(net, jnp.zeros(2), jnp.array([1.0, 0.0]), solver=eg.Newton())
        ```
    """

    log_conductance: Float[Array, " resistors"]
    log_saturation: Float[Array, " diodes"]
    nodes: int = eqx.field(static=True)
    inputs: int = eqx.field(static=True)
    resistors: Pairs = eqx.field(static=True)
    diodes: Pairs = eqx.field(static=True)
    thermal_voltage: float = eqx.field(static=True)
    knee: float = eqx.field(static=True)

    def __init__(
        self,
        nodes: int,
        inputs: int,
        resistors: Sequence[tuple[int, int]],
        diodes: Sequence[tuple[int, int]] = (),
        *,
        conductance: Any = 1.0,
        saturation: Any = 1e-3,
        thermal_voltage: float = 0.1,
        knee: float = 10.0,
    ) -> None:
        nodes = _checks.integer("ResistiveNet", "nodes", nodes, what="the number of nodes")
        inputs = _checks.integer("ResistiveNet", "inputs", inputs, 0, what="the number of held nodes")
        resistors, diodes = _pairs("resistors", resistors), _pairs("diodes", diodes)
        if not inputs < nodes:
            raise ArgumentError(
                f"ResistiveNet: inputs={inputs} holds all of nodes={nodes}; at least one node has to be free."
            )
        for i, j in (*resistors, *diodes):
            if i == j or not (0 <= i < nodes and 0 <= j < nodes):
                raise ArgumentError(f"ResistiveNet: ({i}, {j}) does not join two different nodes of 0 to {nodes - 1}.")
        lonely = set(range(inputs, nodes)) - {node for pair in resistors for node in pair}
        if lonely:
            raise ArgumentError(
                f"ResistiveNet: free nodes {sorted(lonely)} have no resistor, so their voltage may be undetermined. "
                "Join each to the network by a resistor."
            )
        self.log_conductance = _log("conductance", conductance, len(resistors))
        self.log_saturation = _log("saturation", saturation, len(diodes))
        self.nodes, self.inputs, self.resistors, self.diodes = nodes, inputs, resistors, diodes
        self.thermal_voltage, self.knee = (
            _checks.constant("ResistiveNet", name, x, _checks.positive, "it must be positive")
            for name, x in (("thermal_voltage", thermal_voltage), ("knee", knee))
        )

    def __call__(self, s: Float[Array, "*batch free"], u: Float[Array, "*batch inputs"]) -> Float[Array, ""]:
        """Return the co-content of the circuit, in units of power, summed over leading axes."""
        held, free = self.inputs, self.nodes - self.inputs
        shapes = jnp.shape(u), jnp.shape(s)
        if shapes[0][-1:] != (held,) or shapes[1][-1:] != (free,):
            raise ArgumentError(
                f"ResistiveNet: the inputs have shape {shapes[0]} and the state {shapes[1]}; their last axes must be "
                f"the voltages of {held} held nodes and of {free} free ones. An extra voltage would shift the others."
            )
        v = jnp.concatenate([u, s], -1)
        total = 0.5 * jnp.sum(_across(v, self.resistors) ** 2 @ jnp.exp(self.log_conductance))
        return total + jnp.sum(self._diode(_across(v, self.diodes)) @ jnp.exp(self.log_saturation))

    def _diode(self, voltage: Array) -> Array:
        """Return the co-content of a diode of unit saturation current."""
        scale = jnp.asarray(self.thermal_voltage, voltage.dtype)
        x = jnp.minimum(voltage / scale, jnp.asarray(self.knee, voltage.dtype))
        beyond = voltage / scale - x
        # Above the knee: the second-order Taylor polynomial there.
        return scale * (jnp.expm1(x) - x + jnp.expm1(x) * beyond + 0.5 * jnp.exp(x) * beyond**2)


def _pairs(name: str, pairs: Any) -> Pairs:
    """Return the pairs as integers, or raise."""
    try:
        return tuple((operator.index(i), operator.index(j)) for i, j in pairs)
    except (TypeError, ValueError):
        raise ArgumentTypeError(
            f"ResistiveNet: {name}={_checks.shown(pairs)} is not a sequence of pairs of nodes."
        ) from None


def _log(name: str, x: Any, count: int) -> Array:
    """Return the logarithm of one positive number for each element."""
    x = _checks.signed("ResistiveNet", name, x if isinstance(x, jax.Array) else np.asarray(x), "positive").astype(float)
    if x.shape not in ((), (count,)):
        raise ArgumentError(
            f"ResistiveNet: {name} has shape {x.shape}; give one number, or one for each of {count} elements."
        )
    x = eqx.error_if(x, jnp.any(~(x > 0)), f"ResistiveNet: {name} must be positive.")
    return jnp.broadcast_to(jnp.log(x), (count,))


def _across(v: Array, pairs: Pairs) -> Array:
    """Return the voltages across elements between pairs of nodes."""
    ends = jnp.asarray(pairs, jnp.int32).reshape(-1, 2)
    return v[..., ends[:, 0]] - v[..., ends[:, 1]]
